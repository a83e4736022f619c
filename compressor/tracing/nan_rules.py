"""Operations by what they do with unknown values, and the arithmetic of sums, products and norms with NaN."""

from typing import Any

import torch
from torch import Tensor

__all__ = [
    "BATCH_NORMS",
    "BY_CHANNEL",
    "CARRIES",
    "CONTRACTIONS",
    "MONOTONE",
    "MOVES",
    "POINTWISE",
    "ROWS",
    "SAME",
    "SOFTMAX",
    "SUMS",
    "of_classes",
    "quotient",
    "shut",
    "through",
    "where_shut",
]

CONTRACTIONS: dict[str, tuple[int, int, int | None]] = {
    "convolution": (0, 1, 2),
    "addmm": (1, 2, 0),
    "mm": (0, 1, None),
    "bmm": (0, 1, None),
    "baddbmm": (1, 2, 0),
    "mv": (0, 1, None),
    "addmv": (1, 2, 0),
}
"""Sums of products: the places of the two factors and of the bias among the arguments."""

BATCH_NORMS = tuple(
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit_no_training"
    " _batch_norm_no_update".split()
)
SOFTMAX = ("_softmax", "_log_softmax")

POINTWISE = frozenset(
    "_prelu_kernel rrelu_with_noise hardswish bucketize fake_quantize_per_tensor_affine_cachemask"
    " fake_quantize_per_channel_affine_cachemask".split()
)
"""Operations on each entry of their first argument that torch does not call pointwise."""

SAME = frozenset(
    "add sub mul div neg relu hardtanh sigmoid silu clone where masked_fill _conj_physical".split()
)  # fmt: skip
"""Operations entry by entry that make NaN of NaN themselves, where the result depends on it."""

ROWS = frozenset("sort topk kthvalue mode median argmax argmin argsort cummax cummin msort".split())
"""Each result depends on all entries along `dim`."""

BY_CHANNEL = frozenset("grid_sampler_2d grid_sampler_3d max_unpool2d max_unpool3d".split())
"""Operations that make sums of entries of one channel."""

MOVES = frozenset(
    "cat stack clone copy _to_copy fill zero index_select gather index index_put take repeat roll flip rot90"
    " constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d"
    " replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle unsafe_split"
    " unsafe_split_with_sizes unsafe_chunk _unsafe_view im2col tril triu select_scatter slice_scatter"
    " diagonal_scatter as_strided_scatter index_copy index_fill scatter repeat_interleave upsample_nearest1d"
    " upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d embedding"
    " _reshape_copy block_diag".split()
)
"""Operations that move entries; where is not decided by them."""

SUMS = frozenset("sum cumsum".split())
MONOTONE = SUMS | frozenset("any all amax amin max min prod cumprod".split())
"""Reductions that do not fall where an entry rises, or (of integers) sums."""

CARRIES = (
    MOVES
    | MONOTONE
    | frozenset(
        "mean var std var_mean std_mean logsumexp logcumsumexp norm linalg_vector_norm _softmax _log_softmax"
        " _safe_softmax native_layer_norm native_group_norm avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d"
        " _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices"
        " max_pool3d_with_indices upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d"
        " _upsample_bilinear2d_aa _upsample_bicubic2d_aa _fft_r2c _fft_c2c _fft_c2r complex _weight_norm_interface"
        " col2im affine_grid_generator log_sigmoid_forward index_add scatter_add scatter_reduce _cdist_forward"
        " _fused_rms_norm".split()
    )
)
"""Operations that make NaN of NaN themselves, where the result depends on it.

Behind any other operation all is unknown, where an entry of what it is given is.
"""


def where_shut(gamma: Tensor, beta: Tensor | None, normalized: Tensor) -> Tensor:
    """Return beta where gamma is 0, and what was normalized elsewhere."""
    beta = torch.zeros_like(gamma) if beta is None else beta
    return torch.where(gamma == 0, beta.to(normalized.dtype), normalized)


def shut(name: str, out: Any, args: tuple[Any, ...]) -> None:
    """Set what a norm over channels makes to beta where gamma is 0."""
    values = out[0] if isinstance(out, tuple) else out
    gamma, beta = args[1:3] if name == "native_group_norm" else (*args[2:4], None)[:2]
    if name == "_fused_rms_norm":
        beta = None
    if gamma is None or not bool((gamma == 0).any()):
        return
    if name == "native_group_norm":
        side = (1, -1) + (1,) * (values.dim() - 2)
        gamma, beta = gamma.reshape(side), None if beta is None else beta.reshape(side)
    values.copy_(where_shut(gamma, beta, values))


def of_classes(function: Any, args: tuple[Any, ...]) -> Tensor:
    unknown = torch.isnan(args[0])
    values: Tensor = function(torch.where(unknown, 0, args[0]), *args[1:])
    return values.masked_fill_(unknown, torch.nan)


def through(function: Any, args: tuple[Any, ...], left: int, right: int, bias: int | None, **kwargs: Any) -> Tensor:
    """Return a convolution or product: an output depends on the image where a NaN meets an entry that is not 0."""
    a, b = args[left], args[right]
    unknown_a, unknown_b = torch.isnan(a), torch.isnan(b)
    clean = list(args)
    clean[left], clean[right] = torch.where(unknown_a, 0, a), torch.where(unknown_b, 0, b)
    values: Tensor = function(*clean, **kwargs)
    reached = torch.zeros_like(values, dtype=torch.bool)
    there = (((a != 0) | unknown_a), ((b != 0) | unknown_b))
    for first, second in ((unknown_a, there[1]), (there[0], unknown_b)):
        if bool(first.any()) and bool(second.any()):
            paths = list(args)
            paths[left], paths[right] = first.to(a.dtype), second.to(b.dtype)
            if bias is not None and paths[bias] is not None:
                paths[bias] = torch.zeros_like(paths[bias])
            reached |= function(*paths) > 0.5
    return torch.where(reached, torch.nan, values)


def quotient(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return a quotient in which 0 divided by NaN is 0."""
    zero = args[0] == 0
    out: Tensor = function(*args, **kwargs)
    if isinstance(args[1], Tensor):
        out.masked_fill_((zero & torch.isnan(args[1])).expand_as(out), 0)
    return out
