"""From a schedule, a model and an optimizer to a session."""

import math
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from compressor.attached.images import Calibration
from compressor.attached.session import AttachedSession
from compressor.context import Data
from compressor.copying import copied
from compressor.errors import CompressError, UserError
from compressor.importing import plugins_allowed, random_state_kept
from compressor.schedule import BoundSchedule, Faults, Schedule, read_schedule, view_of
from compressor.session import Parts, Settings, windows_past_end
from compressor.timing import Clock
from compressor.world import Processes, World

_ABOVE_0, _BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)


def attach(
    schedule: str | PathLike[str] | Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    *,
    epochs: int,
    steps_per_epoch: int,
    sample_input: Tensor,
    calibration: Iterable[Any] | None = None,
    validation: Iterable[Any] | None = None,
    images: int | None = None,
    clip_norm: float | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
    allow_plugins: bool = False,
    say: Callable[[str], None] = print,
) -> AttachedSession:
    """Attach a schedule to a model and its optimizer in a loop of your own.

    Nothing is read but the schedule, and nothing is written. The model should be on its device by now, and the
    optimizer should hold its parameters: some gates add parameter groups to it here, and learning-rate policies set its
    rates, so that no other scheduler should. Random numbers of the loop are not drawn.

    Where torch.distributed is initialized, all its processes attach the same schedule, and train one network: they
    begin with the weights of process 0.

    Args:
        schedule: A path, a bare name (as for `compress train --schedule`), or the schedule's content as a mapping.
        model: The model that is trained; its parameters keep their names and stay the same objects. Of a model that
            `torch.compile` or DistributedDataParallel has wrapped, the model inside.
        optimizer: The optimizer that trains it.
        epochs: The number of epochs of the whole run; windows without an end end there.
        steps_per_epoch: The number of optimizer steps of an epoch; with accumulation fewer than batches.
        sample_input: A batch of images (N, C, H, W), float, as the model takes them.
        calibration: Gives batches (images, labels) of training images, not augmented, for policies that look at images;
            the first ones are used, and should be the same each time. Taken when first needed. A mapping with
            `pixel_values` and `labels` is also a batch. Of several processes the first one uses its own.
        validation: Gives batches of validation images, for policies that watch accuracies. Iterated at the end of each
            epoch, unless you set `epoch.validation`. Of several processes the first one uses its own.
        images: The number of training images, by which some penalties are divided. Default: the length of
            `calibration.dataset`, else `steps_per_epoch` times the number of images in `sample_input`, times the
            number of processes.
        clip_norm: The largest L2 norm of the gradient over all parameters, clipped by the session after penalties were
            added.
        ema_decay: With it the model that is shipped has running averages of the weights: average <- decay * average +
            (1 - decay) * weight after each step.
        seed: The seed of all random numbers that the schedule draws.
        allow_plugins: Import and run the code that the schedule names (`plugins:`).
        say: Receives messages, one line each.

    Returns:
        The session, before its first epoch.

    Raises:
        UserError: The schedule is wrong, does not fit the model, or has a policy that needs what was not given; with
            one line for each fault, at its file, line and column. Model and optimizer are unchanged.
    """
    wrapper, model = _unwrapped(model)
    _check(model, optimizer, sample_input, epochs, steps_per_epoch)
    _check_numbers(images=images, clip_norm=clip_norm, ema_decay=ema_decay, seed=seed)
    if not isinstance(schedule, str | PathLike | Mapping):
        raise UserError(f"attach(schedule=...): should be a path, a bare name or a mapping, got {_kind(schedule)}")
    for name, given in (("calibration", calibration), ("validation", validation)):
        if given is not None and not (hasattr(given, "__iter__") or hasattr(given, "__getitem__")):
            raise UserError(f"attach({name}=...): should give batches of (images, labels), got {_kind(given)}")
    world = _world(seed, wrapper)
    say = say if world.writes else _silent
    source = schedule if isinstance(schedule, Mapping) else Path(schedule)
    faults = Faults()
    with plugins_allowed(allow_plugins), random_state_kept():
        read = read_schedule(source, faults)
        faults.raise_any()
        _check_needs(read, faults, calibration=calibration is not None, validation=validation is not None)
        bound = read.bind(model, epochs, faults)
        faults.raise_any()
        view = view_of(
            model,
            image=tuple(sample_input.shape[1:]),
            groups=[
                {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
            ],
            epochs=epochs,
            steps=steps_per_epoch,
            processes=world.size,
            build=lambda: copied(model),
        )
        bound = bound.check(view, faults)
        faults.raise_any()
        clock = Clock(epochs, steps_per_epoch)
        data = Data(
            batches=_batches(calibration, model, seed),
            images=_count(images, calibration, len(sample_input) * world.size, steps_per_epoch, bound, say),
            held_out=0 if validation is None else 1,
            shape=tuple(sample_input.shape[1:]),
        )
        settings = Settings(clip_norm, ema_decay, seed, bound.allows_empty_layers)
        before = Parts(model, optimizer)
        try:
            world.share([*model.parameters(), *model.buffers()])
            session = AttachedSession(
                model, optimizer, bound.policies, clock, data, world, settings, say, sample_input, validation
            )
        except BaseException:
            before.restore()
            raise
    if wrapper is not None:
        _refuse_old_shapes(wrapper, session)
    for line in [*bound.notes, *windows_past_end(clock, bound.policies)]:
        say(line)
    return session


def _silent(text: str) -> None:
    """Say nothing: process 0 does."""


def _unwrapped(model: nn.Module) -> tuple[DistributedDataParallel | None, nn.Module]:
    """Return the model inside of `torch.compile` and DistributedDataParallel, and the latter."""
    wrapper = None
    while True:
        if isinstance(model, DistributedDataParallel):
            wrapper, model = model, model.module
        elif isinstance(inside := getattr(model, "_orig_mod", None), nn.Module):
            model = inside
        else:
            return wrapper, model


def _world(seed: int, wrapper: DistributedDataParallel | None) -> World:
    """Return the processes that train together: those of the wrapper, else all."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return Processes(seed, None if wrapper is None else wrapper.process_group)


def _refuse_old_shapes(wrapper: DistributedDataParallel, session: AttachedSession) -> None:
    """Let the wrapper raise `CompressError` in its forward pass once channels were removed."""
    network = session.network
    built = network.removals

    def check(module: nn.Module, args: Any) -> None:
        if network.removals != built:
            raise CompressError(
                "channels were removed (session.removals counts), and this DistributedDataParallel has the old shapes:"
                " drop it, then build it again: network = None; network = DistributedDataParallel(session.model)"
            )

    wrapper.register_forward_pre_hook(check)


def _check(model: nn.Module, optimizer: Optimizer, sample: Tensor, epochs: int, steps: int) -> None:
    """Raise `UserError` where an argument cannot be what is meant."""
    for name, value in (("epochs", epochs), ("steps_per_epoch", steps)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"attach({name}={value!r}): should be a whole number of 1 or more")
    if not isinstance(sample, Tensor) or sample.dim() < 2 or len(sample) == 0 or not sample.is_floating_point():
        got = f"{tuple(sample.shape)} {sample.dtype}" if isinstance(sample, Tensor) else type(sample).__name__
        raise UserError(f"attach(sample_input=...): should be a batch of images (N, C, H, W) of floats, got {got}")
    if not isinstance(model, nn.Module):
        raise UserError(f"attach(model=...): should be a torch.nn.Module, got {_kind(model)}")
    if not hasattr(optimizer, "param_groups"):  # some libraries wrap an optimizer in a class of their own
        raise UserError(f"attach(optimizer=...): should be a torch.optim.Optimizer, got {_kind(optimizer)}")
    if isinstance(model, nn.DataParallel):
        raise UserError(
            "attach(model=...): DataParallel is not supported: its copies know no masks; use DistributedDataParallel"
        )
    mine = {id(parameter) for parameter in model.parameters()}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not mine & held:
        raise UserError(
            "attach(optimizer=...): it holds no parameter of the model: build it from model.parameters(), after the"
            " model was moved or wrapped"
        )


def _check_numbers(*, images: int | None, clip_norm: float | None, ema_decay: float | None, seed: int) -> None:
    """Raise `UserError` for a number outside the bounds that a configuration has for it."""
    whole, number = (int,), (int, float)
    for name, value, kinds, least, most, wanted in (
        ("images", images, whole, 1, math.inf, "a whole number of 1 or more"),
        ("clip_norm", clip_norm, number, _ABOVE_0, math.inf, "a number above 0"),
        ("ema_decay", ema_decay, number, _ABOVE_0, _BELOW_1, "a number above 0 and below 1"),
        ("seed", seed, whole, 0, 2**31 - 1, f"a whole number from 0 to {2**31 - 1}"),
    ):
        if value is None and name != "seed":
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
            raise UserError(f"attach({name}={value!r}): should be {wanted}")


def _kind(value: object) -> str:
    return type(value).__name__


def _check_needs(read: Schedule, faults: Faults, *, calibration: bool, validation: bool) -> None:
    """Add a fault for each policy that needs an iterable that was not given."""
    for entry in read.entries:
        place, policy = read.document.place(entry.path), entry.policy
        if policy.needs_images and not calibration:
            faults.add(
                place, f"{entry.key} needs training images: give attach(calibration=...), batches of (images, labels)"
            )
        if policy.needs_validation and not validation:
            faults.add(
                place, f"{entry.key} needs validation images: give attach(validation=...), batches of (images, labels)"
            )
        if policy.needs_test:
            faults.add(place, f"{entry.key} needs test images, which attach does not take: choose `part: validation`")


def _batches(calibration: Iterable[Any] | None, model: nn.Module, seed: int) -> Callable[[int], Any]:
    def missing(count: int) -> Any:
        raise UserError("there are no training images: give attach(calibration=...), batches of (images, labels)")

    def device() -> torch.device:
        return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    return missing if calibration is None else Calibration(calibration, device, seed)


def _count(
    images: int | None,
    calibration: Iterable[Any] | None,
    batch: int,
    steps: int,
    bound: BoundSchedule,
    say: Callable[[str], None],
) -> int:
    """Return the number of training images; with a message where it is taken from the sample and matters."""
    if images is not None:
        return images
    try:
        return len(calibration.dataset)  # type: ignore[union-attr]
    except (AttributeError, TypeError):
        count = steps * batch
    asking = [one.key for one in bound.policies if one.policy.counts_images]
    if asking:
        say(
            f"{', '.join(asking)}: its penalty is divided by the number of training images, taken as {count} (steps of"
            " an epoch times images in sample_input): give attach(images=...) where that is another"
        )
    return count
