"""Channels chosen by LASSO, weights by least squares: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep
Neural Networks", ICCV 2017 (arXiv 1707.06168).

    min over beta, W of  1/(2N) ||Y - sum_i beta_i X_i W_i^T||_F^2 + lambda ||beta||_1,  ||beta||_0 <= c'      (eq. 2)

N samples of what a layer is given (X, c channels of k positions) and should give (Y, n outputs). First beta with W as
it is: a LASSO over c scalars with the regressors Z_i = X_i W_i^T (eq. 3), its lambda searched until c' of them are
left. Then W, once: least squares over the channels that are left (eq. 4). Here are arrays, no network.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import CompressError

Array = NDArray[np.float64]

Selection = Literal["lasso", "first", "l1", "max_response"]
"""How channels are chosen: by LASSO; the first; by sum |W_i|; by mean |X_i|. Figure 4 of the paper compares LASSO with
`first k` and `max response`; the latter goes there by sums of absolute weights, as Li et al. 2017 do."""

TOO_MANY, MOST, SHARE = 1.1, 400, 20
"""The authors' code: the search ends between c' and 1.1 c' scalars, and looks at min(400, N / 20) samples."""

_HALVINGS, _PARALLEL = 60, 1e-12
_SINGLE = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Reconstruction:
    """`kept` channels in ascending order, their weight [outputs, kept, positions], and the bias where one was fitted.

    ||Y - sum_i X_i W_i^T - b||_F^2 / ||Y||_F^2 over the kept channels: `before` with the old W, `after` with the new.
    """

    kept: NDArray[np.intp]
    weight: Array
    bias: Array | None
    before: float
    after: float


def reconstruct(
    x: Array,
    weight: Array,
    y: Array,
    count: int,
    *,
    bias: Array | None = None,
    intercept: bool = False,
    selection: Selection = "lasso",
    draws: np.random.Generator | None = None,
) -> Reconstruction:
    """Choose `count` channels of `x` [samples, channels, positions], and the weight that makes `y` of them.

    `weight` [outputs, channels, positions] is the layer's own, `y` [samples, outputs] what it should give, its `bias`
    included. With `intercept` a new bias is fitted, too; else the old one stays. `draws` takes the LASSO's samples.
    Raises `CompressError` where a number is not finite.
    """
    if not all(np.isfinite(values).all() for values in (x, weight, y)):
        raise CompressError("what a layer is given or gives is not finite: nothing can be fitted to that")
    old = np.zeros(len(weight)) if bias is None else bias
    kept = choose(x, weight, y - old, count, selection, draws or np.random.default_rng(0))
    some = x[:, kept]
    new, constant = least_squares(some, y if intercept else y - old, intercept=intercept)
    return Reconstruction(
        kept,
        new,
        constant,
        before=relative_error(some, weight[:, kept], old, y),
        after=relative_error(some, new, old if constant is None else constant, y),
    )


def choose(
    x: Array, weight: Array, y: Array, count: int, selection: Selection, draws: np.random.Generator
) -> NDArray[np.intp]:
    """The `count` channels that stay, in ascending order; `y` is what the weight alone should give.

    Of equal ones the first stay.
    """
    channels = x.shape[1]
    if selection == "first" or count >= channels:
        score = np.zeros(channels)
    elif selection == "l1":
        score = np.abs(weight).sum((0, 2))
    elif selection == "max_response":
        score = np.abs(x).mean((0, 2))
    else:
        taken = _some(len(x), len(weight), channels, draws)
        score = np.abs(search(regressors(x[taken], weight), y[taken].ravel(), count))
    return np.sort(np.argsort(-score, kind="stable")[:count])


def _some(samples: int, outputs: int, channels: int, draws: np.random.Generator) -> NDArray[np.intp]:
    """The samples that the LASSO looks at, as in the authors' code; all where they are too few to tell c scalars."""
    few = min(MOST, samples // SHARE)
    if few * outputs < 10 * channels:
        return np.arange(samples)
    return np.sort(draws.choice(samples, few, replace=False))


def regressors(x: Array, weight: Array) -> Array:
    """Z_i = X_i W_i^T: [samples * outputs, channels], a column for each channel."""
    z = np.einsum("sck,nck->snc", x, weight, optimize=True)
    return np.asfortranarray(z.reshape(-1, x.shape[1]))


def lasso(z: Array, y: Array, alpha: float, gram: Array | None = None) -> Array:
    """argmin over beta of 1/(2 rows) ||y - z beta||^2 + alpha ||beta||_1: scikit-learn's convention, no intercept.

    `gram` is z^T z, where it is known.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso  # half a second, which `validate` need not wait for

    gram = z.T @ z if gram is None else gram
    settings = {"fit_intercept": False, "copy_X": False, "max_iter": 10_000, "tol": 1e-12}
    solver = Lasso(alpha=alpha, precompute=gram, random_state=0, **settings)  # else it draws a number, and needs none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of an alpha near 0, which the search may pass
        solver.fit(z, y)
    beta: Array = solver.coef_
    return beta


def search(z: Array, y: Array, count: int) -> Array:
    """The scalars of a LASSO that leaves between c' = `count` and 1.1 c' of them, its alpha found by bisection.

    Where no alpha does, the fewest above that; and where fewer than c' ever speak, those of the smallest alpha. A
    channel that says what another one says, and not louder, has 0: any share of the two would be as good.
    """
    low, high = 0.0, float(np.abs(z.T @ y).max()) / len(y)  # from which on all are 0: their code doubles up to it
    gram = z.T @ z
    own = _own(gram)
    z, gram = np.asfortranarray(z[:, own]), gram[np.ix_(own, own)]
    beta, best = np.zeros(len(own)), np.zeros(len(own))
    for _ in range(_HALVINGS if high > 0 else 0):
        alpha = (low + high) / 2
        beta = np.zeros(len(own))
        beta[own] = lasso(z, y, alpha, gram)
        found = int(np.count_nonzero(beta))
        if found < count:
            high = alpha
            continue
        best, low = beta, alpha
        if found <= TOO_MANY * count:
            break
    return best if best.any() else beta


def _own(gram: Array) -> NDArray[np.bool_]:
    """Of regressors by their products: those that are no multiple, by at most 1, of another one, or of one before."""
    size = np.diag(gram)
    parallel = gram**2 >= (1 - _PARALLEL) * np.outer(size, size)
    louder = size[None, :] > size[:, None] * (1 + _SINGLE)
    same = (size[None, :] >= size[:, None] * (1 - _SINGLE)) & np.tri(len(gram), k=-1, dtype=bool)
    own: NDArray[np.bool_] = ~(parallel & (louder | same)).any(1)
    return own


def least_squares(x: Array, y: Array, *, intercept: bool) -> tuple[Array, Array | None]:
    """The weight [outputs, channels, positions] of least ||y - sum_i x_i W_i^T - b||_F^2, and b with `intercept`.

    Where many do, the one of least norm. What float32 cannot tell from 0 in `x` counts as 0.
    """
    samples, channels, positions = x.shape
    flat = x.reshape(samples, channels * positions)
    mean_x, mean_y = (flat.mean(0), y.mean(0)) if intercept else (np.zeros(flat.shape[1]), np.zeros(y.shape[1]))
    solution = np.linalg.lstsq(flat - mean_x, y - mean_y, rcond=_SINGLE)[0]
    weight: Array = solution.T.reshape(y.shape[1], channels, positions)
    return weight, mean_y - mean_x @ solution if intercept else None


def relative_error(x: Array, weight: Array, bias: Array, y: Array) -> float:
    """||y - sum_i x_i W_i^T - b||_F^2 / ||y||_F^2; what should give nothing and does has no error."""
    given = x.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T + bias
    error, size = float(((y - given) ** 2).sum()), float((y**2).sum())
    return error / size if size > 0 else error
