"""The training of an experiment: config -> bind -> check -> build -> session -> train -> report."""

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from compressor import data, torchrun
from compressor.config import Config
from compressor.data import DataFeed, DataSet, SmokeFeed, expected_images, fingerprint
from compressor.errors import UserError
from compressor.experiment import building, environment, folder, identity, recording
from compressor.experiment.binding import bind, check_augment, check_outputs
from compressor.experiment.joining import check_batch, check_data, joined
from compressor.experiment.more_epochs import check_ends
from compressor.experiment.networks import Networks, needs_data
from compressor.experiment.smoke import estimate
from compressor.experiment.smoke import load_data as smoke_data
from compressor.experiment.specification import Specification
from compressor.experiment.training_run import Outcome, Run
from compressor.experiment.written import Written
from compressor.schedule import Faults
from compressor.session import rng, start, windows_past_end
from compressor.training import check_installed, load_weights, optimizers
from compressor.world import World

__all__ = ["Outcome", "train"]


def train(
    spec: Specification,
    out: Path | None,
    root: Path | None,
    wanted_device: str,
    resume: bool,
    *,
    smoke: bool = False,
    other_data: bool = False,
) -> Outcome:
    """Train in a new folder, or continue one. Raises `CompressError`; what was saved stays.

    `smoke`: every epoch has two steps of a few images, targets are not judged, and the full run is estimated.
    `other_data`: a run may be continued on other images than it began with.
    """
    check_installed(spec.config.logging)
    with joined(spec.config.seed, wanted_device) as (world, where):
        if smoke and world.size > 1:
            raise UserError("--smoke tries a run in one process: start it without torchrun")
        if torchrun.restarted() and out is not None:
            resume = True
        found = world.decide(lambda: folder.to_resume(spec, out)) if resume else None
        if found is None:
            return _train(spec, out, root, where, None, world, resume=resume, smoke=smoke, other_data=other_data)
        if found.finished:
            world.decide(lambda: folder.own_checkpoint(spec, found.path))  # another run's end is not this one's
            return Outcome(found.path, None)
        if found.begun and found.planned < spec.config.epochs:
            check_ends(spec, found.planned, found.path / folder.CHECKPOINT)
        with folder.held(found.path) if world.writes else nullcontext():
            return _train(spec, out, root, where, found, world, resume=resume, smoke=smoke, other_data=other_data)


def _train(
    spec: Specification,
    out: Path | None,
    root: Path | None,
    where: torch.device,
    found: folder.Found | None,
    world: World,
    *,
    resume: bool,
    smoke: bool,
    other_data: bool,
) -> Outcome:
    config, saved = spec.config, None
    if found is not None and found.begun:
        saved = world.decide(lambda: folder.own_checkpoint(spec, found.path))
    # Bind and check: everything that can be known to be wrong before there are data.
    faults, resumed = Faults(), found is not None and found.begun
    check_batch(spec, world, faults)
    wanted = config.model.pretrained and config.checkpoint_path is None and not resumed
    images = smoke_data if smoke else _data
    known, count, missing = None, None, None
    if needs_data(config):
        try:
            known, count = images(config, root)
        except UserError as error:
            missing = error  # all other faults come first
    networks = Networks(config, known.shape if known else data.image_shape(config.data), pretrained=wanted)
    bound, view = bind(spec, faults, networks, init=not resumed, known=known, processes=world.size)
    faults.raise_any()
    if missing is not None:
        raise missing
    # Build.
    dataset, count = images(config, root) if known is None else (known, count)
    said = list(dataset.notes)  # until there is a log
    if found is not None and saved is None:
        said.append(f"{found.path} has no {folder.CHECKPOINT}: the run begins again")
    if found is not None and saved is not None:
        source = found.path / folder.CHECKPOINT
        dataset = identity.same_data(dataset, saved, source, other_data=other_data, say=said.append)
    found_data = fingerprint(dataset)
    check_data(found_data, world)
    kind = partial(SmokeFeed, count=count) if smoke else partial(DataFeed, world=world)
    feed = kind(dataset, config.data, config.seed, where)
    if view is not None and (view.image is None or expected_images(config.data) is None):
        # What depends on the images' shape and number is known now.
        late, view = view.image is None, replace(view, image=dataset.shape, shared={})
        lines = check_outputs(spec, view, faults, networks, feed.images, world.size)
        said += [line for line in lines if line not in bound.notes]
        if late:
            check_augment(spec, dataset.shape, faults)
            bound = bound.check(view, faults)
        faults.raise_any()
    rng.seed_all(config.seed)
    network = networks.to_train(len(dataset.classes))
    network = building.new_model(config, network, dataset, where, resumed=resumed, say=said.append)
    bound = bound.at_pace(feed.pace)
    if found is not None and saved is not None:
        load_weights(network, saved, str(found.path / folder.CHECKPOINT))
    world.share([*network.parameters(), *network.buffers()])
    optimizer = optimizers.build(network, config.optimizer)
    shapes = None if saved is None else saved["state"].get("dense")
    session = start(
        config,
        network,
        optimizer,
        bound.policies,
        feed,
        said.append,
        shapes,
        shape=dataset.shape,
        classes=dataset.classes,
        allows_empty_layers=bound.allows_empty_layers or smoke,  # two steps an epoch say nothing of that
        world=world,
    )
    if saved is None and config.checkpoint_path is not None:
        held = session.keep_zeros() if config.keeps_zeros else None
        said += building.zeros_in_words(config.checkpoint_path, network, held)
    said += [*bound.notes, *windows_past_end(session.clock, bound.policies)]
    # Train and report.
    with ExitStack() as stack:
        path = (
            world.decide(lambda: stack.enter_context(folder.made(spec, out, resume=resume, smoke=smoke)))
            if found is None
            else found.path
        )
        asked = recording.targets_of(bound.policies, view, session.clock, lambda text: session.say(text))
        written = Written(spec, path, networks, dataset, found_data, session, smoke)
        if world.writes:
            if found is not None:  # of more epochs, or with another report
                folder.write_config(spec, path)
            environment.add(path, where, found_data)
        outcome = Run(written, feed, session, where, bound, asked).run(said, saved)
    if not isinstance(feed, SmokeFeed):
        return outcome
    cost = estimate(config, networks, path, dataset, feed, where, count)
    return replace(outcome, shortfalls=(), estimate=cost)


def _data(config: Config, root: Path | None) -> tuple[DataSet, None]:
    return building.load_data(config, root), None
