"""Pruning in equal events: Bartoldson et al., "The Generalization-Stability Tradeoff", NeurIPS 2020 (their code)."""

from compressor.sparsity.topk import pruned_count


def left_after(sparsity: float, total: int, event: int, events: int) -> int:
    """How many of N0 = `total` are left after event i = 1 ... n: ceil(F + (N0 - F)(n - i) / n), F = ceil((1 - s) N0).

    F itself is exact after the last one; 512 filters and 90 % in 7 events: 447, 381, 315, 250, 184, 118, 52.
    """
    going = pruned_count(sparsity, total)
    return total - going + -(-going * (events - event) // events)
