"""The processes of a run: this one alone, or those that `torchrun` started."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from compressor import torchrun
from compressor.data import Fingerprint, differences
from compressor.errors import CompressError, UserError
from compressor.experiment import building
from compressor.experiment.specification import Specification
from compressor.schedule import Faults
from compressor.world import Processes, World

_PATIENCE = timedelta(hours=6)
"""How long processes wait for one that computes alone. One that dies closes its connections: that is seen at once."""


@contextmanager
def joined(seed: int, wanted_device: str) -> Iterator[tuple[World, torch.device]]:
    """Yield the processes that train together, and this one's device.

    A lost connection is raised as `CompressError`. After an error the group stays: the others must not lose their
    connection to this process before its message is on its way.
    """
    if not torchrun.started():
        yield World(), building.device(wanted_device)
        return
    where, own = _device(wanted_device), not dist.is_initialized()
    try:
        if own:
            torchrun.meet()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo",
                store=torchrun.store(),
                rank=torchrun.rank(),
                world_size=torchrun.size(),
                timeout=_PATIENCE,
            )
        yield Processes(seed), where
    except CompressError:
        raise
    except Exception as error:
        if torchrun.is_loss(error):
            raise torchrun.loss(error) from error
        raise
    if own:
        dist.destroy_process_group()


def _device(wanted: str) -> torch.device:
    """Return the device of this process: on CUDA each process of a machine has its own."""
    if torchrun.size() == 1:
        return building.device(wanted)
    if wanted.startswith("cuda:"):
        raise UserError(
            f"--device {wanted}: torchrun gives each process a device of its own: give cuda, or leave it out"
        )
    found = building.device(wanted)
    if found.type != "cuda":
        return found
    count, number = torch.cuda.device_count(), torchrun.local_rank()
    if number >= count:
        raise UserError(
            f"there are {count} CUDA devices on this machine, torchrun started more processes: give it"
            f" --nproc-per-node {count}"
        )
    return building.device(f"cuda:{number}")


def check_batch(spec: Specification, world: World, faults: Faults) -> None:
    """Add a fault where the images of a batch cannot be shared equally by the processes, in equal parts."""
    config, size = spec.config, world.size
    parts = size * config.optimizer.accumulate
    if size == 1 or config.data.batch % parts == 0:
        return
    also = f" in {config.optimizer.accumulate} parts" if config.optimizer.accumulate > 1 else ""
    least = -(-config.data.batch // parts) * parts
    faults.add(
        spec.config_document.place(("data", "batch")),
        f"data.batch: {config.data.batch} images cannot be shared equally by {size} processes{also}: set data.batch to"
        f" a multiple of {parts}, as {least}",
    )


def check_data(mine: Fingerprint, world: World) -> None:
    """Raise `UserError` where this process has other data than the first one: on another machine, say."""
    first = world.decide(lambda: mine)
    found = "; ".join(differences(first, mine))
    if found:
        raise UserError(f"the data of rank {world.rank} are not those of rank 0: {found}")
