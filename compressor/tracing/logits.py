"""The weights that make the logits, and whether the logits depend on the image where weights are all zero."""

from collections.abc import Collection, Sequence

from compressor.tracing.trace import Read, Trace

__all__ = ["all_zero", "logits_weights", "reaches_logits"]

_MULTIPLIES = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d matmul __matmul__ mm bmm addmm"
    " multi_head_attention_forward".split()
)
"""Functions whose result does not depend on the image where the weight is all zero."""


_JOINS = frozenset("cat concat concatenate hstack".split())


def logits_weights(trace: Trace) -> tuple[str, ...]:
    """Return the weights of the layers that make the logits: each of their outputs is one class.

    What keeps the classes as a dim may follow: an activation, a mean over positions, a sum; and a concatenation, where
    each head makes some of the classes.
    """
    found: dict[str, None] = {}
    for output in trace.outputs[:1]:
        classes = output.shape[1] if len(output.shape) > 1 else 0
        waiting, seen = [(output.maker, classes)], set[int]()
        while waiting:
            number, classes = waiting.pop()
            if number is None or number in seen:
                continue
            seen.add(number)
            operation = trace.operations[number]
            applied = operation.applied
            if applied is not None and applied.weight is not None:
                if operation.call.function in _MULTIPLIES and classes in applied.shape[:2]:
                    found[applied.weight] = None
                continue
            reads = [read for read in operation.reads if read.of_images and len(read.shape) > 1]
            if operation.call.function in _JOINS and sum(read.shape[1] for read in reads) == classes:
                waiting += [(read.maker, read.shape[1]) for read in reads]
            else:
                waiting += [(read.maker, classes) for read in reads if classes in read.shape[1:]]
    return tuple(found)


def reaches_logits(trace: Trace, zeros: Collection[str]) -> bool:
    """Return whether a path leads from the images to the logits beside the weights `zeros`, which are all zero."""
    alive: list[bool] = []

    def depends(reads: Sequence[Read]) -> bool:
        return any(read.of_images and (read.maker is None or alive[read.maker]) for read in reads)

    for operation in trace.operations:
        applied = operation.applied
        closed = applied is not None and applied.weight in zeros and operation.call.function in _MULTIPLIES
        alive.append(not closed and depends(operation.reads))
    return depends(trace.outputs)


def all_zero(trace: Trace | None, zeros: Sequence[str]) -> str:
    """Return in words why the logits do not depend on the image; `zeros`: the weights that are all zero."""
    # A dead block beside a live shortcut is not the reason.
    causes = [name for name in zeros if trace is not None and not reaches_logits(trace, {name})] or list(zeros)
    said = "the logits no longer depend on the image"
    if not causes:
        return f"no weights that are not zero connect the image with the logits: {said}"
    also = f" ({', '.join(causes[1:])} {'are' if len(causes) > 2 else 'is'} all zero, too)" if len(causes) > 1 else ""
    return f"{causes[0]} is all zero: {said}{also}"
