"""The findings of a pruner on a model."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import get_args

from compressor.context import Finding, View
from compressor.errors import listed
from compressor.masking.budgets import check_budget, planned
from compressor.masking.masks import with_coupled_weights
from compressor.masking.merging import direct_norms
from compressor.masking.selecting import Remedy, remedies, selection
from compressor.pruners import Goal, PrunerBase
from compressor.reconstruction import check_reconstruction
from compressor.sparsity.structures import CHANNELS, FILTERS, Structure
from compressor.thinning import ChannelGraph, Untraceable, couplings, following_norms
from compressor.tracing import MAKE_ZEROS, Place, all_zero, expected_channels, places, reaches_logits


def check_pruner(view: View, pruner: PrunerBase, fold: str | None = None, *, masks: bool = False) -> list[Finding]:
    """Return the findings of a pruner.

    `fold`: the argument for which it needs the batch norms that follow its weights. `masks`: whether the chosen
    structures are pruned; then the channels that its weights share with others matter, too.
    """
    misfits = [Finding("error", line) for line in pruner.misfits(view.targets, view.shapes)]
    found = list(misfits)
    sliced = [name for name, cut in pruner.cuts(view.targets).items() if cut.dim is not None]
    if pruner.reconstruction is not None:
        names, goals = list(pruner.cuts(view.targets)), pruner.goals(view.targets, view.window, view.window.last)
        for goal in goals[:1]:  # the same for all of its weights
            found += check_reconstruction(view, names, partial(goal.count, goal.sparsity), needs_call=False)
    if misfits:
        return found
    found += _of_channels(view, pruner, sliced, fold, masks)
    if not any(finding.severity == "error" for finding in found):
        found += check_budget(view, pruner, masks)
    if masks and not any(finding.severity == "error" for finding in found):
        found += check_classes(view, {name: [cut] for name, cut in _cuts(view, pruner).items()})
    found += _of_statistics(view, pruner)
    found += [Finding("note", f"{view.key} prunes nothing of {line}") for line in _nothing_pruned(view, pruner)]
    return found


def _cuts(view: View, pruner: PrunerBase) -> Mapping[str, Structure]:
    """Return the structure of each weight that a pruner prunes, with those that it adds because they share channels."""
    cuts = dict(pruner.cuts(view.targets))
    graph = view.graph if pruner.extends else None
    if (found := planned(view, pruner, view.window, view.window.last)) is not None:
        return dict.fromkeys(found.pruned, pruner.unit)  # a budget leaves alone what cannot be removed
    if isinstance(graph, ChannelGraph):
        cuts |= dict.fromkeys(with_coupled_weights(pruner, list(cuts), graph.channels), pruner.unit)
    return cuts


def check_classes(view: View, cuts: Mapping[str, Sequence[Structure]]) -> list[Finding]:
    """Return findings on weights that make the logits, where one of their structures is all weights of a class.

    `cuts`: the structures that may become zero, by weight.
    """
    whole = {name: cut.name for name, own in cuts.items() for cut in own if cut.holds_outputs(view.shapes[name])}
    if not whole or view.image is None:  # checked again when the images are known
        return []
    if view.logits is None:
        said = "which layer makes the logits is not known, because the forward pass cannot be traced"
        names = ", ".join(whole)
        return [Finding("warning", f"{said}: {view.key} may prune whole classes of {names}")]
    found = []
    for name, unit in whole.items():
        if name not in view.logits:
            continue
        said = f"{name} makes the logits: {view.key} prunes whole classes of it ({unit})"
        if view.version == 1:
            found.append(Finding("warning", f"{said}, and its zeros cannot be thinned"))
        else:
            listed = any(isinstance(selected, list) and name in selected for selected in view.targets.values())
            found.append(Finding("error", f"{said}: " + (f"exclude it: '!{name}'" if listed else "leave it out")))
    return found


def check_removable(view: View, cuts: Mapping[str, Sequence[Structure]]) -> list[Finding]:
    """Return warnings on weights whose whole outputs may become zero, and which an operation keeps whatever is pruned.

    `cuts`: the structures that may become zero, by weight.
    """
    names = [name for name, own in cuts.items() if any(cut.dim == FILTERS.dim for cut in own)]
    if not names or not isinstance(view.graph, ChannelGraph):
        return []
    every = view.graph.channels.with_coupled(names, 0)
    alike: dict[str, list[str]] = {}
    for name, keeper in couplings(view.graph, every, FILTERS).broken:
        if name in names:
            alike.setdefault(keeper, []).append(name)
    said = "filters of {names} that {key} sets to zero cannot be thinned: {why}"
    lines = [said.format(names=listed(these), key=view.key, why=why) for why, these in alike.items()]
    return [Finding("warning", line) for line in lines]


def check_logits(view: View, goals: Sequence[Goal], *, allowed: bool | None) -> list[Finding]:
    """Return a finding where goals leave weights all zero without which the logits do not depend on the image.

    `allowed`: the policy's `allow_empty_layers`; None where it has no such argument.
    """
    zeros = [
        name
        for goal in goals
        if goal.names and goal.zeros(view.shapes) >= sum(math.prod(view.shapes[name]) for name in goal.names)
        for name in goal.names
    ]
    if not zeros or view.trace is None or reaches_logits(view.trace, zeros):
        return []
    said = f"{view.key} prunes all: {all_zero(view.trace, zeros)}"
    if allowed or view.version == 1:
        return [Finding("warning", said)]
    return [Finding("error", f"{said}: prune less{'' if allowed is None else ALLOW}")]


ALLOW = ", or set `allow_empty_layers: true` in the args of the pruner's policy"


def _places(view: View) -> Mapping[str, Place] | None:
    """Return what follows each weight in a forward pass; None where it cannot be run without storage."""
    found: Mapping[str, Place] | None = view.once("places", lambda: None if view.trace is None else places(view.trace))
    return found


def _of_channels(view: View, pruner: PrunerBase, names: Sequence[str], fold: str | None, masks: bool) -> list[Finding]:
    """Return findings on the channels of `names`, of which whole slices are pruned, and on batch norms."""
    norms = fold or (pruner.measured.name if pruner.measured is not None and "batch_norms" in pruner.needs else None)
    if view.image is None:
        said = f"which channels {view.key} shares with other weights depends on the images' shape"
        return [Finding("note", said)] if names else []
    if not names and norms is None:
        return []
    graph = view.graph
    if isinstance(graph, Untraceable) or graph is None:
        return [_without_channels(view, norms, graph)]
    found = []
    whole = with_coupled_weights(pruner, list(names), graph.channels)
    known = _places(view)
    for name in whole if fold is None and norms is not None else []:
        if not following_norms(graph, name) and (known is None or name in known):
            said = f"{view.key} scores by {norms}, but no batch norm follows {name}"
            found.append(Finding("error", said))
    if fold is not None and not found and not direct_norms(graph, view.model, _selected(view, pruner, graph)):
        said = f"{view.key}: {fold}: no batch norm follows any of its weights directly"
        found.append(Finding("error", said))
    return found + (_of_couplings(view, pruner, graph, whole) if masks else [])


def _selected(view: View, pruner: PrunerBase, graph: ChannelGraph) -> list[str]:
    """Return the weights that a pruner prunes, with those that it adds because they share channels."""
    names = list(dict.fromkeys(name for selected in view.targets.values() for name in selected))
    return with_coupled_weights(pruner, names, graph.channels)


def _without_channels(view: View, norms: str | None, reason: Untraceable | None) -> Finding:
    assert view.image is not None
    wanted = expected_channels(view.model, view.image)
    if wanted is not None:
        have = view.image[0]
        said = f"the model expects {_channels(wanted)}, the images have {have}: set data.channels: {wanted}"
        return Finding("error", said)
    if norms is not None:
        return Finding("error", f"{view.key} needs batch norms ({norms}), but their places are not known: {reason}")
    return Finding("warning", f"{reason}: {view.key} ranks weight by weight, and cannot be thinned")


def _channels(count: int) -> str:
    return f"{count} channel" + ("s" if count > 1 else "")


def _of_couplings(view: View, pruner: PrunerBase, graph: ChannelGraph, names: Sequence[str]) -> list[Finding]:
    found: list[Finding] = []
    refused: list[str] = []
    changes: dict[str, Remedy] = {}
    cuts = pruner.cuts(view.targets)
    for structure in (FILTERS, CHANNELS):
        mine = [name for name in names if cuts.get(name, pruner.unit).dim == structure.dim]
        shared = couplings(graph, mine, structure)
        for joint in shared.joint:
            how = "ranks as one, for" if pruner.unit.dim is not None else "prunes one by one, though"
            found.append(Finding("note", f"{view.key} {how} they share channels: {', '.join(joint)}"))
        logits = frozenset(view.logits or ())
        own = remedies(graph, mine, structure, logits) if shared.broken else {}
        alike: dict[tuple[str, Remedy], list[str]] = {}
        for name, keeper in shared.broken:
            alike.setdefault((own[name].why or keeper, own[name]), []).append(name)
        for (keeper, remedy), these in alike.items():
            one = len(these) == 1
            said = f"{listed(these)} {'is' if one else 'are'} pruned by {view.key}, but {keeper}"
            if pruner.extends and pruner.budget(view.window, view.window.last) is not None:
                alone = f"{view.key} prunes only channels that can be removed, not all of {listed(these)}: {keeper}"
                found.append(Finding("note", alone))
            elif view.version == 1:
                masked = "it is masked" if one else "they are masked"
                found.append(Finding("warning", f"{said}: {masked}, and cannot be thinned"))
            else:
                refused.append(f"{said}: {_in_words(remedy, these, pruner, view)}")
        changes |= own
        if structure is FILTERS:
            changes |= {name: Remedy(leave=(name,)) for name in mine if name in logits}
    if refused and (whole := selection(pruner, view.targets, changes)):
        refused[-1] += f"; all of this selection can be removed: `{whole}`"
    return found + [Finding("error", line) for line in refused]


def _in_words(remedy: Remedy, these: Sequence[str], pruner: PrunerBase, view: View) -> str:
    """Return what to change in a selection because of some weights of it whose channels cannot be removed."""
    if remedy.add:
        field = type(pruner).model_fields.get("scope")
        has_scope = field is not None and "coupled" in get_args(field.annotation)
        scope = "set `scope: coupled`" if has_scope else "use `scope: coupled` of `class: Pruner`"
        return f"select {listed(remedy.add)}, too, or {scope}"
    selected = list(dict.fromkeys(name for chosen in view.targets.values() for name in chosen))
    leave = [name for name in selected if name in remedy.leave]
    if leave == selected:
        return "without that nothing is left to prune: select other weights, or remove the pruner"
    return f"leave {'it' if leave == these and len(these) == 1 else 'them' if leave == these else listed(leave)} out"


def _of_statistics(view: View, pruner: PrunerBase) -> list[Finding]:
    """Return findings on what follows the weights whose outputs a criterion reads."""
    criterion = pruner.measured
    known = _places(view) if criterion is not None else None
    if criterion is None or known is None:
        return []
    found: list[Finding] = []
    kind, of_maps = criterion.name, criterion.of_outputs and "batch_norms" not in criterion.needs
    for name in dict.fromkeys(name for selected in view.targets.values() for name in selected):
        place = known.get(name)
        if place is None:
            said = f"criterion {kind}: the forward pass does not use {name} in a convolution or linear layer"
            found.append(Finding("error", said))
        elif of_maps and not place.channels:
            found.append(Finding("error", f"criterion {kind}: the outputs of {name} are not channels (dim 1)"))
        elif criterion.behind_activation and not place.activation:
            said = (
                f"criterion {kind} reads the output of an activation, but none follows {name}: it reads the output of"
                f" {place.call.function}"
            )
            found.append(Finding("warning", said))
        elif criterion.counts_zeros and place.call.function not in MAKE_ZEROS:
            said = (
                f"criterion {kind} counts zeros, but {place.call.function} after {name} makes none: its outputs are"
                f" pruned in their order"
            )
            found.append(Finding("warning", said))
    return found


def _nothing_pruned(view: View, pruner: PrunerBase) -> list[str]:
    """Return a line for weights for which a sparsity rounds to 0 structures at the window's end."""
    window = view.window
    if pruner.threshold(view.targets, window, window.last) is not None:
        return []  # of what is drawn a sparsity is the least
    found = []
    for goal in pruner.goals(view.targets, window, window.last):
        total = sum(goal.structure.count(view.shapes[name]) for name in goal.names)
        if goal.names and goal.sparsity > 0 and goal.count(goal.sparsity, total) == 0:
            found.append(f"{', '.join(goal.names)}: {goal.sparsity:g} of {total} {goal.structure.name} rounds to 0")
    return found
