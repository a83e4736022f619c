"""Dropout ratios that depend on the connections that are left: Han et al., NIPS 2015, section 3.2."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch.nn.modules.dropout import _DropoutNd

from compressor.component import Selects, Targets
from compressor.policies.policy import Context, Finding, Memory, Policy, View, refuse
from compressor.sparsity import count_nonzero
from compressor.tracing import Trace, before_dropout, trace

DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout")


@dataclass
class Ratios(Memory):
    """The weight that each dropout module follows, its ratio as given and now, and the number of mask changes then."""

    follows: dict[str, str] = field(default_factory=dict)
    given: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    masks: int = -1


class DropoutPolicy(Policy, name="dropout"):
    """Set dropout ratios D_r = D_o sqrt(C_ir / C_io) in the window: C_ir of C_io connections are left (Han 2015).

    The connections are those of the nearest weight before the module, or of the one that `follow` names. The ratio is
    restored at the window's end.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - dropout: {modules: ['drop*'], follow: {drop: fc1.weight}}
    """

    modules: Annotated[str | list[str], Selects(DROPOUTS)] = Field(
        description="dropout modules: a name, a glob or '*', or a list of them"
    )
    follow: Annotated[dict[str, str], Selects(DROPOUTS, values=True)] = Field(
        default={},
        description="name of the weight that a module follows, by module; default: the nearest weight before it",
    )

    @property
    def needs_images(self) -> bool:
        return True

    def check(self, view: View) -> list[Finding]:
        """Return also what `'*'` leaves out: dropout of other classes, and inside of attention and recurrent layers."""
        lone = [] if view.trace is None else _unfollowed(_follows(view.targets, view.trace))
        found = [Finding("error", f"{view.key}: {line}") for line in lone]
        if "*" not in ([self.modules] if isinstance(self.modules, str) else self.modules):
            return found
        named = view.targets["modules"]
        left = [
            f"{path} ({type(module).__name__})"
            for path, module in view.modules.items()
            if path not in named and (isinstance(module, _DropoutNd) or _own_ratio(module) > 0)
        ]
        said = f"{view.key}: '*' selects {', '.join(DROPOUTS)}; the dropout of {', '.join(left)} keeps its ratio"
        return [*found, Finding("note", said, of_policy=True)] if left else found

    def init(self, ctx: Context) -> Ratios:
        follows = _follows(ctx.targets, trace(ctx.network.model, ctx.data.sample()[:1]))
        refuse(ctx, _unfollowed(follows))
        memory = Ratios({path: weight for path, weight in follows.items() if weight is not None})
        memory.given = {path: _dropout(ctx, path).p for path in memory.follows}
        return memory

    def on_epoch_begin(self, ctx: Context, memory: Ratios) -> None:
        self._adjust(ctx, memory)

    def on_minibatch_begin(self, ctx: Context, memory: Ratios) -> None:
        # The ratio is no part of a checkpoint's model; and masks may be made inside an epoch.
        if not memory.ratios or memory.masks != ctx.masks.changes:
            self._adjust(ctx, memory)
        self._put(ctx, memory.ratios)

    def resume(self, ctx: Context, memory: Ratios) -> None:
        # Between two epochs of a window with gaps the ratio stays; a module's ratio is no part of the model.
        self._put(ctx, memory.ratios or memory.given)

    def _put(self, ctx: Context, ratios: Mapping[str, float]) -> None:
        for path, ratio in ratios.items():
            _dropout(ctx, path).p = ratio

    def _adjust(self, ctx: Context, memory: Ratios) -> None:
        memory.masks = ctx.masks.changes
        memory.ratios = {}
        folded = ctx.substitutions.values()
        for path, weight in memory.follows.items():
            value, keep = folded.get(weight, ctx.parameters[weight].detach()), ctx.masks.keep(weight)
            left = count_nonzero(value if keep is None else value * keep)
            dense = math.prod(ctx.network.dense.get(weight, ctx.parameters[weight].shape))
            memory.ratios[path] = memory.given[path] * math.sqrt(left / dense)

    def on_exit(self, ctx: Context, memory: Ratios, run_ends: bool) -> None:
        self._put(ctx, memory.given)
        memory.ratios = dict(memory.given)

    def figures(self, ctx: Context, memory: Ratios) -> dict[str, float]:
        return dict(memory.ratios)


def _own_ratio(module: Any) -> float:
    """Return the ratio of a layer that drops by itself, as attention and recurrent layers do."""
    ratio = getattr(module, "dropout", 0.0)
    return ratio if isinstance(ratio, float) else 0.0


def _follows(targets: Targets, passed: Trace) -> dict[str, str | None]:
    """Return the weight that each selected module follows; None where none is named and none comes before it."""
    upstream = before_dropout(passed)
    return {path: targets["follow"].get(path, upstream.get(path)) for path in targets["modules"]}


def _unfollowed(follows: Mapping[str, str | None]) -> list[str]:
    lone = [path for path, weight in follows.items() if weight is None]
    return [f"no weight comes before {path}: name one with `follow: {{{path}: ...}}`" for path in lone]


def _dropout(ctx: Context, path: str) -> Any:
    return ctx.network.model.get_submodule(path)
