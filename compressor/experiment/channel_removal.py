"""`compress thin`: a checkpoint with unused channels removed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compressor.copying import copied
from compressor.data import DataFeed, fingerprint
from compressor.errors import CompressError, UserError
from compressor.experiment import building, loading
from compressor.experiment.identity import recorded
from compressor.reports import Report, Thinning, compared, measure
from compressor.thinning import describe, nothing_removed, nothing_zero, thin
from compressor.training import checkpoint

IMAGES = 256
"""The largest number of test images on which the logits are compared."""


@dataclass(frozen=True)
class ThinCheckpoint:
    """The file that was written, its report, and one line where there was nothing to remove."""

    path: Path
    report: Report
    nothing: str = ""


def thin_checkpoint(
    path: Path,
    out: Path | None,
    root: Path | None,
    wanted_device: str,
    round_to: int,
    say: Callable[[str], None],
    *,
    other_data: bool,
    measures: bool = True,
    config: str | None = None,
    sets: Sequence[tuple[str, str]] = (),
) -> ThinCheckpoint:
    """Write a checkpoint without its unused channels. `say` receives warnings; `measures`: the report has the latency
    where channels were removed. `config`, `sets`: of weights of another tool.

    Where no filter and no channel is zero the network is written as it is. Raises `UserError` for wrong input,
    `CompressError` where nothing can be removed of what is zero, or the outputs would change.
    """
    target = out or (path if path.is_dir() else path.parent) / "thin.pt"
    if target.exists():
        raise UserError(f"{target} exists and is not overwritten: give another file with --out")
    loaded = loading.load(path, config, sets, root=root, say=say)
    where = building.device(wanted_device)
    dataset = loading.dataset_of(loaded, path, root, say, other_data=other_data)
    feed = DataFeed(dataset, loaded.config.data, loaded.config.seed, where)
    masked = loaded.network.to(where)
    network, record = thin_network(masked, next(iter(feed.test()))[0], path, round_to)
    thinnings = [*loaded.thinnings, *([record] if record else [])]
    saved = {key: value for key, value in loaded.saved.items() if key not in ("state", "finished")}
    if not loaded.own:
        saved |= recorded(dataset, fingerprint(dataset))
    saved["model"] = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    dense = loaded.dense().to(where)
    if describe(network) != describe(dense):
        saved["architecture"] = describe(network)
    saved["thinnings"] = [one.model_dump() for one in thinnings]
    checkpoint.save(target, saved)
    metrics, figures = loaded.saved["metrics"], loaded.saved.get("figures")
    report = measure(
        network,
        loaded.shape,
        metrics.get("test"),
        thinnings,
        dense,
        figures,
        metrics.get("train"),
        loaded.saved["classes"],
    )
    # Of a network that was thinned before, the masked one is smaller than the dense one already.
    stages = {"dense": dense, "thinned before" if loaded.thinnings else "masked": masked}
    if record is not None:
        return ThinCheckpoint(target, compared(report, {**stages, "thin": network}, loaded.shape, measures=measures))
    said = f"{path}: {nothing_zero(network)}; {target} has the network as it is"
    return ThinCheckpoint(target, compared(report, stages, loaded.shape, measures=False), said)


def thin_network(
    masked: nn.Module, images: Tensor, path: Path | str, round_to: int = 1
) -> tuple[nn.Module, Thinning | None]:
    """Return a copy of the network of `path` without its unused channels, and the record of the removal; None where no
    filter and no channel is zero. The outputs are compared on `images`, at most `IMAGES` of them.

    Raises `CompressError` with the reasons where nothing can be removed of what is zero, or the outputs would change.
    """
    network = copied(masked)
    thinned = thin(network, images[:IMAGES], round_to=round_to)
    if thinned.stays and not thinned.cut:
        raise CompressError(f"{path}: {nothing_removed(thinned.stays)}")
    if not thinned.cut:
        return network, None
    thinned.cut.model(network)
    record = Thinning(
        when="compress thin" + (f" --round-to {round_to}" if round_to > 1 else ""),
        parameters_before=sum(parameter.numel() for parameter in masked.parameters()),
        parameters_after=sum(parameter.numel() for parameter in network.parameters()),
        images=thinned.images,
        largest_difference=thinned.largest_difference,
        exact_difference=thinned.exact,
        stays=[str(stay) for stay in thinned.stays],
        skipped=list(thinned.skipped),
    )
    return network, record
