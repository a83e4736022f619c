"""The sparsity that the policies ask for, by weight and epoch."""

import math
from collections.abc import Sequence

from compressor.policies.policy import BoundPolicy, View
from compressor.schedule.widths import widths
from compressor.timing import Clock


def targets(policies: Sequence[BoundPolicy], view: View, clock: Clock, epoch: int) -> dict[str, float]:
    """Return the sparsity of each weight that the policies ask for at the end of `epoch`, rounded to whole structures.

    It is the largest of those that they ask for. Weights are left out for which none does, which are ranked together
    with others, or of which only the run shows it.
    """
    view.once("widths", lambda: widths(policies, view))
    found: dict[str, float] = {}
    for bound in policies:
        window = bound.policy.window
        time = epoch if window.unit == "epoch" else (epoch + 1) * clock.steps_per_epoch - 1
        predicted = bound.policy.predict(bound.view(view), clock, time)
        for names, zeros in predicted.zeros.items():
            name = names[0]
            shape = view.shapes.get(name)
            if len(names) > 1 or shape is None or name in predicted.unknown:
                continue
            found[name] = max(found.get(name, 0.0), zeros / max(math.prod(shape), 1))
    return found
