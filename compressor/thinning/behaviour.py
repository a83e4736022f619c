"""What torch's operations do with channels: which move them, which work on each by itself, and what becomes of 0.

The names are those of torch's internal operations (`aten`), without a trailing `_` for the form that works in place.
"""

from collections.abc import Sequence
from typing import Any

MOVES = frozenset(
    "_reshape_alias _to_copy _unsafe_view alias as_strided channel_shuffle chunk clone constant_pad_nd"
    " contiguous detach diagonal expand flip im2col index index_select lift lift_fresh movedim narrow"
    " native_channel_shuffle permute pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d"
    " reflection_pad3d repeat replication_pad1d replication_pad2d replication_pad3d reshape roll select slice"
    " split split_with_sizes squeeze t tile transpose unbind unfold unsafe_chunk unsafe_split"
    " unsafe_split_with_sizes unsqueeze view view_as_complex view_as_real".split()
)
"""Operations that move entries and change none (those that pad add entries)."""

SPATIAL = ("pool", "upsample", "interpolate", "_adaptive_", "grid_sampler", "_fft_")
"""Parts of the names of operations that work on the positions of each channel."""

LIKE = frozenset("zeros_like ones_like empty_like full_like rand_like randn_like bernoulli".split())
"""Operations whose result has the shape of their argument."""

NEW = frozenset("new_zeros new_ones new_empty new_full".split())

REDUCTIONS = frozenset(
    "mean sum amax amin max min std var var_mean std_mean norm linalg_vector_norm logsumexp prod any all median"
    " nanmedian argmax argmin count_nonzero aminmax mode nansum".split()
)
"""Operations over whole dims, which are gone (or have size 1) then."""

ALONG = frozenset("softmax _softmax _safe_softmax log_softmax _log_softmax cumsum cumprod logcumsumexp sort".split())
"""Operations along one dim, which stays."""

_ZERO_AT_ZERO = frozenset(
    "relu relu6 gelu silu mish tanh leaky_relu elu selu celu hardswish abs neg sqrt square sin tan asin atan sinh asinh"
    " atanh erf erfinv expm1 log1p floor ceil round trunc sign sgn frac hardshrink softshrink nan_to_num dropout"
    " native_dropout bernoulli rrelu rrelu_with_noise deg2rad rad2deg positive _to_copy bitwise_and"
    " cumsum mean sum amax amin max min std var norm linalg_vector_norm prod glu angle real imag conj hardtanh"
    " masked_fill copy where maximum minimum fmax fmin lerp logical_and logical_or logical_xor add sub gt lt ne"
    " index_put div mul remainder fmod true_divide floor_divide _prelu_kernel prelu xlogy any all cummax"
    " clamp clamp_min clamp_max threshold pow fill zero heaviside median aminmax nansum var_mean"
    " std_mean hypot".split()
)
"""Operations that may be 0 where all that they are given is 0, if their numbers allow it."""

_FIRST = frozenset("div true_divide floor_divide remainder fmod _prelu_kernel prelu index_put copy xlogy".split())
"""Operations that are 0 where their first argument is."""

_ANY = frozenset("mul bitwise_and logical_and".split())
"""Products: 0 where one argument is."""


def rule_at_zero(name: str, args: Sequence[Any], kwargs: Any) -> str:
    """Return where an operation is 0: where `all` that it is given is 0, `any`, the `first`; or `never` surely."""
    numbers = [one for one in args[1:] if isinstance(one, (int, float)) and not isinstance(one, bool)]
    first = numbers[0] if numbers else None
    if name in ("add", "sub", "rsub") and numbers and first != 0:
        return "never"
    if name in ("gt", "lt", "ne", "ge", "le", "eq") and len(args) > 1:
        return "all" if _compared_with_zero(name, args[1]) else "never"
    if name == "pow":
        return "all" if first is not None and first > 0 else "never"
    if name in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
        return "all" if _bounds_hold_zero(name, args, kwargs) else "never"
    if name == "threshold" and len(args) > 2:
        return "all" if args[2] == 0 or args[1] < 0 else "never"
    if name in ("masked_fill", "fill", "index_put", "heaviside") and first not in (None, 0):
        return "never"
    if name not in _ZERO_AT_ZERO:
        return "never"
    return "any" if name in _ANY else "first" if name in _FIRST else "all"


def _compared_with_zero(name: str, other: Any) -> bool:
    """Return whether 0 compared with a number is false."""
    if not isinstance(other, (int, float)):
        return name in ("gt", "lt", "ne")
    return not {
        "gt": other < 0, "lt": other > 0, "ge": other <= 0, "le": other >= 0, "eq": other == 0, "ne": other != 0,
    }[name]  # fmt: skip


def _bounds_hold_zero(name: str, args: Sequence[Any], kwargs: Any) -> bool:
    given = [*args[1:3], kwargs.get("min"), kwargs.get("max"), kwargs.get("min_val"), kwargs.get("max_val")]
    if name == "clamp_min":
        low, high = given[0], None
    elif name == "clamp_max":
        low, high = None, given[0]
    elif len(args) == 1 and name == "hardtanh":
        low, high = kwargs.get("min_val", -1), kwargs.get("max_val", 1)
    else:
        low = args[1] if len(args) > 1 else kwargs.get("min")
        high = args[2] if len(args) > 2 else kwargs.get("max")
    numbers = [one for one in (low, high) if one is not None]
    if not all(isinstance(one, (int, float)) for one in numbers):
        return False
    return (low is None or low <= 0) and (high is None or high >= 0)
