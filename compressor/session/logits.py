"""The check that the logits of a run still depend on the image."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compressor.context import Context
from compressor.errors import CompressError, listed
from compressor.session import rng
from compressor.sparsity import prunable
from compressor.tracing import all_zero, dependent_logits, lost_classes, trace_on_meta


class LogitsCheck:
    """Find logits that no longer depend on the image in the network that would be shipped now.

    A weight that was all zero at the beginning of the run, as some heads are, counts where it is masked.
    """

    def __init__(self, ctx: Context, *, allowed: bool) -> None:
        """`allowed`: whether the run goes on where no logit depends on the image."""
        self._ctx, self._allowed = ctx, allowed
        self._at_start = {name for name, weight in prunable(ctx.network.model).items() if not bool(weight.any())}
        self._lost = set[str]()
        self._unknown = self._empty = False

    def __call__(self) -> None:
        """Raise `CompressError` where no logit depends on the image; name the classes that were lost since the last
        call.

        The network has the weights that would be shipped.
        """
        ctx = self._ctx
        assert ctx.data.shape is not None
        state = rng.capture(ctx.network.device)
        with self._revived():
            found = dependent_logits(ctx.network.model, ctx.data.shape)
        rng.restore(state, ctx.network.device)
        if found is None:
            if not self._unknown:
                ctx.say("warning: the forward pass cannot be followed: lost classes are not looked for")
            self._unknown = True
        elif not bool(found.any()):
            self._collapsed()
        elif lost := lost_classes(found, ctx.data.classes):
            new = [name for name in lost if name not in self._lost]
            makers = ctx.network.logits() if new else ()
            if new:
                ctx.say(
                    f"warning: epoch {ctx.clock.epoch}: {len(lost)} of {len(found)} classes are lost: the logits of"
                    f" {listed([repr(name) for name in new], 20)} no longer depend on the image"
                    + (f" ({' and '.join(makers)} {'make' if len(makers) > 1 else 'makes'} them)" if makers else "")
                )
            self._lost |= set(new)

    def _collapsed(self) -> None:
        model, clock = self._ctx.network.model, self._ctx.clock
        zeros = [
            name
            for name, weight in prunable(model).items()
            if weight.numel() and not bool(weight.any()) and self._counts(name)
        ]
        assert self._ctx.data.shape is not None
        said = all_zero(trace_on_meta(model, self._ctx.data.shape), zeros)
        if not self._allowed:
            raise CompressError(
                f"epoch {clock.epoch}: {said}: prune or penalize less (`allow_empty_layers: true` in the args of a"
                f" pruner's policy, where the schedule has one, makes this a warning)"
            )
        if not self._empty:
            self._ctx.say(f"warning: epoch {clock.epoch}: {said}")
        self._empty = True

    def _counts(self, name: str) -> bool:
        """Return whether a weight that is all zero is so because of the run."""
        keep = self._ctx.masks.keep(name)
        return name not in self._at_start or (keep is not None and not bool(keep.any()))

    @contextmanager
    def _revived(self) -> Iterator[None]:
        """Set weights that are all zero since the beginning to 1 inside the block, where no mask says otherwise."""
        weights = prunable(self._ctx.network.model)
        again = [weights[name] for name in self._at_start if not bool(weights[name].any()) and not self._counts(name)]
        with torch.no_grad():
            for weight in again:
                weight.fill_(1)
            try:
                yield
            finally:
                for weight in again:
                    weight.zero_()
