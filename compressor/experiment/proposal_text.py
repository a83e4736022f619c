"""The two files of a new experiment, with the reason for each value beside it."""

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from compressor.experiment.proposal import Proposal

_WIDTH, _SHORT = 120, 44
"""The longest line, and the longest line of YAML that has its comment beside it."""

_LARGE = 100_000_000
"""The size of a checkpoint in bytes from which one is not written after every epoch."""

Line = tuple[str, str]
"""A line of YAML and its comment."""


def config_text(proposal: Proposal) -> str:
    """Return the configuration: what is trained."""
    images, model, epochs = proposal.images, proposal.model, proposal.epochs
    trained = proposal.init is not None or model.pretrained
    lines: list[Line] = [
        (f"model: {_flow({'name': model.name, **_model(proposal)})}", _about_model(proposal)),
        ("data:", ""),
        (f"  name: {images.name}", _about_images(proposal)),
    ]
    if proposal.size is not None:
        lines.append((f"  size: {proposal.size}", _about_size(proposal)))
    if proposal.channels != images.channels or images.name == "imagefolder":
        grey = "grey images become 3 equal planes" if proposal.channels == 3 else "images become grey"
        lines.append((f"  channels: {proposal.channels}", f"what the network takes; {grey}"))
    held = round(images.train * proposal.validation)
    steps = -(-(images.train - held) // proposal.batch)
    used = f"{held:,} training images choose best.pt; the test images are used once, at the end"
    lines += [
        (f"  batch: {proposal.batch}", f"{steps:,} optimizer steps an epoch; less memory: optimizer.accumulate"),
        (f"  validation: {proposal.validation:g}", used if held else "too few training images to hold some back"),
        (f"  augment: {_flow(list(proposal.augment))}", _about_augment(proposal)),
    ]
    if proposal.workers:
        lines.append((f"  workers: {proposal.workers}", "processes that decode: the images do not fit into memory"))
    lines += [("optimizer:", ""), *_optimizer(proposal)]
    if proposal.init is not None:
        begin = {"path": proposal.init, "head": "reset"} if proposal.new_head else proposal.init
        more = "; the layer that makes the logits is new, for it is of other classes there" if proposal.new_head else ""
        lines.append((f"init: {_flow(begin)}", f"the trained weights with which training begins{more}"))
    why = "half as many as for new weights" if trained else "more of them mostly give a better network"
    lines.append((f"epochs: {epochs}", f"{steps * epochs:,} optimizer steps; {why}; the schedule counts on so many"))
    if proposal.checkpoint > _LARGE:
        every, size = max(epochs // 10, 1), f"{proposal.checkpoint / 1e6:,.0f} MB"
        lines.append(
            (f"checkpoint: {{every_epochs: {every}}}", f"each has about {size}; a killed run continues from it")
        )
    folder = "" if images.folder is None else f" in {images.folder}"
    head = f"What is trained: {model.name} on {images.name}{folder}. Written by `compress new`; change what you like."
    return _text(head, lines)


def schedule_text(proposal: Proposal, config: str) -> str:
    """Return the schedule: how it is compressed. `config` is the name under which it finds the configuration."""
    return _text(_about_goal(proposal), _schedule(proposal, config))


def _model(proposal: Proposal) -> dict[str, Any]:
    given = proposal.model.model_dump(exclude_defaults=True)
    return {key: value for key, value in given.items() if key != "name"}


def _about_model(proposal: Proposal) -> str:
    if proposal.model.num_classes is not None:
        return f"{proposal.model.num_classes} classes, as in the images"
    return "`compress list models`, or package.module:factory"


def _about_images(proposal: Proposal) -> str:
    images = proposal.images
    if images.folder is None:
        return "no files are needed; your own images: `name: imagefolder`" if images.name == "digits" else images.name
    counts = f"{images.train:,} training" + (f" and {images.test:,} test images" if images.test else " images")
    held = "; there is no test folder: one image in five is held out for the test" if images.held_out else ""
    return f"{counts} in {len(images.classes)} classes, in the folder that --data names{held}"


def _about_size(proposal: Proposal) -> str:
    images, size = proposal.images, proposal.size or 0
    low, high = images.sides
    sides = f"{low}" if low == high else f"{low} to {high}, half of them at least {images.side}"
    if size > images.side:
        return f"the smallest side that is tried and that the network takes; the images have {sides} pixels"
    return f"side in pixels: shorter sides are {sides}; smaller is faster"


def _about_augment(proposal: Proposal) -> str:
    if "flip" in proposal.augment:
        return "random shift and mirror; remove flip where left and right matter, as in text"
    if proposal.augment:
        return "random shift; no flip: a mirrored digit or letter is another one"
    return "none: the images are centred, and a mirrored digit is no digit"


def _optimizer(proposal: Proposal) -> list[Line]:
    trained = proposal.init is not None or proposal.model.pretrained
    name, rate, why = {
        "batch": ("adam", 0.001, "Adam's usual rate (Kingma and Ba 2015)"),
        "layer": ("adamw", 0.0003, "small, as networks with layer norms need it"),
        "none": ("adam", 0.0005, "below Adam's usual 0.001: without batch norms"),
    }[proposal.norm]
    if trained:
        rate, why = rate / 5, f"a fifth of {rate:g}: the weights are trained already"
    lines = [
        (f"  name: {name}", "works for most networks as it is; sgd with momentum may end a little better"),
        (f"  lr: {rate:g}", f"{why}; if the loss does not fall, a third of it"),
    ]
    if name == "adamw":
        lines.append(("  weight_decay: 0.05", "as DeiT trains transformers (Touvron et al. 2021)"))
    return lines


def _about_goal(proposal: Proposal) -> str:
    goal, layers = proposal.goal, proposal.layers
    counts = f"{len(layers.chosen)} of {len(layers.every)} layers"
    if goal.kind == "filters":
        return f"How it is compressed: {goal.sparsity:.0%} of the filters of {counts} are pruned, and then removed."
    return f"How it is compressed: {goal.sparsity:.0%} of the weights of {counts} become zero."


def _schedule(proposal: Proposal, config: str) -> list[Line]:
    goal, begin, end, epochs = proposal.goal, proposal.begin, proposal.end, proposal.epochs
    first = f"{goal.sparsity / 10:.2g}"
    rate = f"initial_sparsity: {first}, final_sparsity: {goal.sparsity:g}"
    cubic = f"from {first} fast, then slowly, to {goal.sparsity:g} (Zhu and Gupta 2017)"
    lines: list[Line] = [("version: 2", ""), (f"config: {_flow(config)}", "what is trained"), ("pruners:", "")]
    lines += [("  gradual:", "")]
    if goal.kind == "filters":
        lines += [
            ("    class: Pruner", ""),
            ("    criterion: l1", "filters of the smallest L1 norm go first (Li et al. 2017)"),
            ("    structure: Filters", "whole filters (of linear layers: neurons), which can be removed"),
            ("    scope: coupled", "layers whose outputs are added lose the same filters, else none could be removed"),
            *_weights(proposal),
            (f"    rate: {{agp: {{{rate}}}}}", cubic),
            ("extensions:", ""),
            ("  thinner: {class: FilterRemover}", "takes the pruned filters out of the network"),
        ]
    else:
        lines += [
            ("    class: AutomatedGradualPruner", "of each layer, the weights of the smallest magnitude"),
            *_weights(proposal),
            (f"    initial_sparsity: {first}", cubic),
            (f"    final_sparsity: {goal.sparsity:g}", ""),
        ]
    started = "one epoch to adapt first" if proposal.init is not None or proposal.model.pretrained else "trained first"
    last = end - 1
    lines += [
        ("lr_schedulers:", ""),
        (f"  cosine: {{class: CosineAnnealingLR, T_max: {epochs}}}", "from lr to nearly 0 over the whole run"),
        ("policies:", ""),
        (
            f"  - {{pruner: {{instance_name: gradual}}, starting_epoch: {begin}, ending_epoch: {end}}}",
            f"{started}; at each epoch from {begin} to {last}",
        ),
    ]
    if goal.kind == "filters":
        lines.append(
            (f"  - {{extension: {{instance_name: thinner}}, epochs: [{last}]}}", "when the last filters are pruned")
        )
    rest = f"epochs {end} to {epochs - 1} train what is left"
    lines.append(("  - {lr_scheduler: {instance_name: cosine}}", rest))
    return lines


def _weights(proposal: Proposal) -> list[Line]:
    """Return the selection of weights: by what is left out, where that is shorter."""
    layers = proposal.layers
    out = [name for name in layers.every if name not in layers.chosen]
    heads = [name for name in out if name in layers.logits]
    others = len(out) - len(heads)
    said = []
    if heads:
        said.append(f"not {', '.join(heads)}: {'it makes' if len(heads) == 1 else 'they make'} the logits")
    if others:
        said.append(f"not {others} more: their channels are shared with what cannot be removed")
    chosen = ["*", *(f"!{name}" for name in out)] if len(out) < len(layers.chosen) else list(layers.chosen)
    flow = "'*'" if chosen == ["*"] else f"[{', '.join(map(_flow, chosen))}]"
    lines = textwrap.wrap(f"weights: {flow}", _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    comments = "; ".join(said) or "all convolutions and linear layers"
    if len(lines) == 1:
        return [(f"    {lines[0]}", comments)]
    indented = [f"    {lines[0]}", *(f"      {line}" for line in lines[1:])]
    return [(f"    # {comments}", ""), *((line, "") for line in indented)]


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def _text(head: str, lines: Sequence[Line]) -> str:
    """Return the lines with their comments: in one column beside short ones, above the others."""
    column = max((len(line) for line, said in lines if said and len(line) <= _SHORT), default=0) + 2
    written = [*textwrap.wrap(head, _WIDTH, initial_indent="# ", subsequent_indent="# "), ""]
    for line, said in lines:
        if not said:
            written.append(line)
        elif len(line) <= _SHORT and column + len(said) + 2 <= _WIDTH:
            written.append(f"{line:<{column}}# {said}")
        else:
            indent = " " * (len(line) - len(line.lstrip()))
            written += textwrap.wrap(said, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
            written.append(line)
    return "\n".join(written) + "\n"
