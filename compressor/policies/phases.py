"""Training in dense and sparse phases: DSD and iterative hard thresholding."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from compressor.component import Settings
from compressor.component import Weights as Selection
from compressor.masking import check_logits, zeros_of_goals
from compressor.policies.policy import Context, Finding, Memory, Policy, Prediction, View
from compressor.pruners import Goal, Request, Scope, keep_largest
from compressor.rates import Sparsity
from compressor.timing import Clock


@dataclass(frozen=True)
class Phase:
    """Epochs `start` up to `end` (exclusive), counted from the window's first; `scale`: a factor on the learning
    rates.
    """

    kind: Literal["dense", "sparse"]
    start: int
    end: int
    scale: float


class PhasePolicy(Policy):
    """Mask the smallest |w| in sparse phases, chosen at their beginning; in dense phases they are trained again from 0.

    The optimizer's momentum and moments are cleared at every switch.
    """

    weights: Selection = Field(
        description="weights that are pruned in sparse phases: a name, a glob, re:EXPRESSION, type:CLASS or '*', or"
        " a list of them"
    )
    sparsity: Sparsity = Field(description="fraction of zeros in a sparse phase")
    scope: Scope = Field(
        default="layer",
        description="layer: each weight reaches the sparsity by itself; global: all weights together, ranked as one",
    )

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        if self.window.unit == "step" or self.window.step != 1 or self.window.epochs is not None:
            raise ValueError(
                "phases are whole epochs, one after the other: give the window a beginning, no list, no step"
            )
        return self

    def phase(self, time: int) -> Phase | None:
        """Return the phase of an epoch, counted from the window's first; the last phase after all."""
        raise TypeError(f"{type(self).__name__} has no phases")

    @property
    def length(self) -> int:
        """Return the number of epochs of all phases."""
        raise TypeError(f"{type(self).__name__} has no phases")

    @property
    def _last(self) -> Phase:
        last = self.phase(self.length)
        assert last is not None
        return last

    def _now(self, clock: Clock) -> Phase | None:
        time = clock.epoch - self.window.first
        return self.phase(time) if time < self.length else None

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        phase = self.phase(time - self.window.first)
        if phase is None or phase.kind == "dense":
            return Prediction()
        return zeros_of_goals(view, self.goals(view.targets["weights"]))

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        phase = self._now(ctx.clock)
        if phase is None or ctx.clock.epoch - self.window.first != phase.start:
            return
        if phase.start > 0 or (phase.kind == "sparse" and ctx.clock.epoch > 0):
            ctx.optimizer.clear()
        if phase.kind == "dense":
            ctx.masks.release(ctx.key)
            return
        request = Request(ctx.parameters, ctx.targets, self.window, ctx.clock.epoch, dense=ctx.network.dense)
        for goal in self.goals(ctx.targets["weights"]):
            for name, keep in keep_largest(request, goal).items():
                ctx.masks.set(ctx.key, name, keep)
        ctx.masks.apply()

    def goals(self, names: list[str]) -> list[Goal]:
        """Return the sparsities of a sparse phase."""
        together = [tuple(names)] if self.scope == "global" else [(name,) for name in names]
        return [Goal(some, self.sparsity) for some in together]

    def rate_factor(self, clock: Clock) -> float:
        phase = self._now(clock)
        return 1.0 if phase is None else phase.scale

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        ctx.optimizer.scales[ctx.key] = self.rate_factor(ctx.clock)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        ctx.optimizer.scales.pop(ctx.key, None)

    def settled(self, clock: Clock) -> int:
        return self.window.first + self._last.start

    def check(self, view: View) -> list[Finding]:
        last = self.window.first + self.length
        end = min(self.window.end, view.epochs)
        said = ""
        if last > end:
            said = f"its phases end with epoch {last - 1}, its window with epoch {end - 1}"
        elif last < view.epochs and self._last.scale != 1:
            said = f"its phases end with epoch {last - 1}; after that the learning rate is not scaled"
        found = [Finding("warning", f"{view.key}: {said}", of_policy=True)] if said else []
        return found + check_logits(view, self.goals(view.targets["weights"]), allowed=None)


class SparseRate(Settings):
    """Factors on the learning rates."""

    sparse: float = Field(default=0.1, gt=0, description="factor on the learning rates in sparse phases")
    redense: float = Field(
        default=0.1, gt=0, description="factor on the learning rates in the dense phases after a sparse one"
    )


class DSDPolicy(PhasePolicy, name="dsd"):
    """Train dense, sparse (pruned), and dense again without masks (Han et al., ICLR 2017)."""

    example: ClassVar[str] = """
    version: 2
    policies:
      - dsd:
          weights: '*'
          sparsity: 0.3
          dense_epochs: 1
          sparse_epochs: 1
          redense_epochs: 1
          lr_scales: {sparse: 0.1, redense: 1.0}
    """

    dense_epochs: int = Field(ge=0, description="number of epochs of the first dense phase; 0: it begins sparse")
    sparse_epochs: int = Field(ge=1, description="number of epochs of each sparse phase")
    redense_epochs: int = Field(ge=1, description="number of epochs of each dense phase after a sparse one")
    repeats: int = Field(default=1, ge=1, description="number of times that sparse and dense phases follow each other")
    lr_scales: SparseRate = Field(
        default=SparseRate(),
        description="factors on the learning rates by kind of phase; the first dense phase has factor 1",
    )

    @property
    def length(self) -> int:
        return self.dense_epochs + self.repeats * (self.sparse_epochs + self.redense_epochs)

    def phase(self, time: int) -> Phase | None:
        if time < 0:
            return None
        if time < self.dense_epochs:
            return Phase("dense", 0, self.dense_epochs, 1.0)
        time = min(time, self.length - 1)
        both = self.sparse_epochs + self.redense_epochs
        start = time - (time - self.dense_epochs) % both
        middle = start + self.sparse_epochs
        if time < middle:
            return Phase("sparse", start, middle, self.lr_scales.sparse)
        return Phase("dense", middle, start + both, self.lr_scales.redense)


class CycleRate(Settings):
    """Factors on the learning rates."""

    sparse: float = Field(default=0.1, gt=0, description="factor on the learning rates in sparse phases")
    dense: float = Field(
        default=1.0, gt=0, description="factor on the learning rates in dense phases; default 1: unchanged"
    )


class IHTPolicy(PhasePolicy, name="iht"):
    """Repeat: keep the k largest weights and train them, then train all (iterative hard thresholding, Jin et al.
    2016).
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - iht:
          weights: '*'
          sparsity: 0.5
          sparse_epochs: 1
          dense_epochs: 1
          cycles: 1
          end: sparse
          lr_scales: {sparse: 1.0}
    """

    sparse_epochs: int = Field(
        ge=1, description="s2, number of epochs of a sparse phase: only the weights that stay are trained"
    )
    dense_epochs: int = Field(ge=1, description="s1, number of epochs of a dense phase: all weights are trained")
    cycles: int = Field(
        default=1, ge=1, description="number of times that a sparse and a dense phase follow each other"
    )
    end: Literal["sparse", "dense"] = Field(
        default="sparse", description="last phase, whose network is shipped: sparse (one more sparse phase) or dense"
    )
    lr_scales: CycleRate = Field(default=CycleRate(), description="factors on the learning rates by kind of phase")

    @property
    def length(self) -> int:
        both = self.sparse_epochs + self.dense_epochs
        return self.cycles * both + (self.sparse_epochs if self.end == "sparse" else 0)

    def phase(self, time: int) -> Phase | None:
        if time < 0:
            return None
        time = min(time, self.length - 1)
        both = self.sparse_epochs + self.dense_epochs
        start = time - time % both
        middle = start + self.sparse_epochs
        if time < middle:
            return Phase("sparse", start, middle, self.lr_scales.sparse)
        return Phase("dense", middle, start + both, self.lr_scales.dense)
