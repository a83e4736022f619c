"""Channels chosen by LASSO, weights by least squares (He, Zhang and Sun, ICCV 2017).

"Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168).

    min over beta, W of  1/(2N) ||Y - sum_i beta_i X_i W_i^T||_F^2 + lambda ||beta||_1,  ||beta||_0 <= c'      (eq. 2)

N samples of a layer's inputs (X, c channels of k positions) and of the outputs that it should have (Y, n outputs).
First beta with the old W: a LASSO over c scalars with the regressors Z_i = X_i W_i^T (eq. 3), its lambda searched until
c' of them are left (the authors' code), or raised step by step with beta multiplied into W each time (their text). Then
W, once: least squares over the channels that are left (eq. 4). This file has arrays, no network.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import CompressError
from compressor.importing import late

Array = NDArray[np.float64]

Selection = Literal["lasso", "repeated", "backward", "first", "l1", "max_response"]
"""How channels are chosen: by one LASSO, or by LASSO again and again; by backward elimination, the one first without
which least squares leaves the smallest error; the first; by sum |W_i|; by mean |X_i|. Figure 4 of the paper compares
LASSO with `first k` and `max response`; the latter ranks there by sums of absolute weights, as in Li et al. 2017."""

TOO_MANY, MOST, SHARE = 1.1, 400, 20
"""The authors' code: the search ends between c' and 1.1 c' scalars, and uses min(400, N / 20) samples."""

_HALVINGS, _PARALLEL = 60, 1e-12
_RIDGE = 1e-9
"""Of the mean square of an input, so that inputs that repeat each other have an inverse."""
_SINGLE = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Reconstruction:
    """The `kept` channels in ascending order, their weight [outputs, kept, positions], and the new bias, if any.

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
    kept: NDArray[np.intp] | None = None,
    draws: np.random.Generator | None = None,
) -> Reconstruction:
    """Choose `count` channels of `x` [samples, channels, positions], and the weight that best gives `y` from them.

    `kept` are channels that were chosen already. `weight` [outputs, channels, positions] is the layer's own, `y`
    [samples, outputs] the outputs that it should have, its `bias` included. With `intercept` a new bias is computed,
    too; else the old one stays. `draws` selects the LASSO's samples. Raises `CompressError` where a number is not
    finite.
    """
    if not all(np.isfinite(values).all() for values in (x, weight, y)):
        raise CompressError("inputs or outputs of a layer are not finite: it cannot be reconstructed")
    old = np.zeros(len(weight)) if bias is None else bias
    if kept is not None:
        pass
    elif selection == "backward" and count < x.shape[1]:
        kept = backward(x, y if intercept else y - old, count, intercept=intercept)
    else:
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
    """Return the `count` channels that stay, in ascending order; `y`: the outputs without a bias.

    Of equal ones the first stay.
    """
    channels = x.shape[1]
    if selection in ("first", "backward") or count >= channels:
        score = np.zeros(channels)
    elif selection == "l1":
        score = np.abs(weight).sum((0, 2))
    elif selection == "max_response":
        score = np.abs(x).mean((0, 2))
    else:
        taken = _some(len(x), len(weight), channels, draws)
        by = search if selection == "lasso" else repeat
        score = np.abs(by(regressors(x[taken], weight), y[taken].ravel(), count))
    return np.sort(np.argsort(-score, kind="stable")[:count])


def _some(samples: int, outputs: int, channels: int, draws: np.random.Generator) -> NDArray[np.intp]:
    """Return the samples that the LASSO uses, as in the authors' code; all where they are too few for c scalars."""
    few = min(MOST, samples // SHARE)
    if few * outputs < 10 * channels:
        return np.arange(samples)
    return np.sort(draws.choice(samples, few, replace=False))


def regressors(x: Array, weight: Array) -> Array:
    """Return Z_i = X_i W_i^T: [samples * outputs, channels], a column for each channel."""
    z = np.einsum("sck,nck->snc", x, weight, optimize=True)
    return np.asfortranarray(z.reshape(-1, x.shape[1]))


def lasso(z: Array, y: Array, alpha: float, gram: Array | None = None) -> Array:
    """Return argmin over beta of 1/(2 rows) ||y - z beta||^2 + alpha ||beta||_1, as in scikit-learn, no intercept.

    `gram` is z^T z, where it is known.
    """
    ignored = late("sklearn.exceptions").ConvergenceWarning
    model = late("sklearn.linear_model")  # half a second, which `validate` need not wait for
    gram = z.T @ z if gram is None else gram
    settings = {"fit_intercept": False, "copy_X": False, "max_iter": 10_000, "tol": 1e-12}
    # With a random state of its own it draws nothing from NumPy's.
    solver = model.Lasso(alpha=alpha, precompute=gram, random_state=0, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ignored)  # of an alpha near 0, which the search may pass
        solver.fit(z, y)
    beta: Array = solver.coef_
    return beta


def search(z: Array, y: Array, count: int) -> Array:
    """Return the scalars of a LASSO that leaves between c' = `count` and 1.1 c' of them, its alpha found by bisection.

    Where no alpha does, the fewest above that; and where there are never c' of them, those of the smallest alpha. A
    channel that is a multiple, by at most 1, of another one has 0: any division between the two would be as good.
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


def repeat(z: Array, y: Array, count: int) -> Array:
    """Return the scalars: lambda rises until one more is 0, beta is multiplied into W, and so on until `count` are
    left.

    "In practice, [...] we apply (i) multiple times, until ||beta||_0 <= c' satisfies" (section 3.1). A scalar that is
    small once costs more the next time: LASSO's shrinking of the large ones does not add up to the loss of the wrong
    ones.
    """
    ignored = late("sklearn.exceptions").ConvergenceWarning
    lars_path_gram = late("sklearn.linear_model").lars_path_gram
    gram, product = z.T @ z, z.T @ y
    scale = np.ones(len(gram))
    left = np.flatnonzero(_own(gram) & (np.diag(gram) > 0))
    while len(left) > count:
        own = scale[left]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ignored)
            _, _, path = lars_path_gram(
                product[left] * own, gram[np.ix_(left, left)] * np.outer(own, own), n_samples=len(y)
            )
        # The path goes from where all are 0 to lambda = 0: the last point of it where some are.
        point = path[:, (path == 0).any(0)][:, -1]
        scale[left] = own * np.abs(point)
        left = np.delete(left, np.flatnonzero(point == 0)[-1])
    beta = np.zeros(len(gram))
    beta[left] = np.maximum(scale[left], np.finfo(float).tiny)
    return beta


def backward(x: Array, y: Array, count: int, *, intercept: bool) -> NDArray[np.intp]:
    """Return the `count` channels that are left when, one after the other, the channel of smallest loss is removed.

    Without channel i the error of the least-squares solution rises by tr(W_i D_i^-1 W_i^T), D_i its block of (X^T X)^-1
    (Hassibi and Stork 1993, for a block of weights). Of equal ones the last is removed.
    """
    samples, channels, positions = x.shape
    flat, y = x.reshape(samples, -1), y - y.mean(0) if intercept else y
    flat = flat - flat.mean(0) if intercept else flat
    gram = flat.T @ flat
    inverse = np.linalg.inv(gram + np.eye(len(gram)) * max(_RIDGE * np.trace(gram) / len(gram), np.finfo(float).tiny))
    weight = inverse @ (flat.T @ y)
    left = list(range(channels))
    while len(left) > count:
        blocks = [slice(i * positions, (i + 1) * positions) for i in range(len(left))]
        missed = [float(np.sum(weight[b] * np.linalg.solve(inverse[b, b], weight[b]))) for b in blocks]
        worst = len(left) - 1 - int(np.argmin(missed[::-1]))
        gone = blocks[worst]
        rest = np.delete(np.arange(len(inverse)), gone)
        share = np.linalg.solve(inverse[gone, gone], inverse[gone, rest]).T
        weight = weight[rest] - share @ weight[gone]
        inverse = inverse[np.ix_(rest, rest)] - share @ inverse[gone][:, rest]
        del left[worst]
    return np.array(left)


def _own(gram: Array) -> NDArray[np.bool_]:
    """Return, from the products of regressors, those that are no multiple, by at most 1, of another or an earlier
    one.
    """
    size = np.diag(gram)
    parallel = gram**2 >= (1 - _PARALLEL) * np.outer(size, size)
    louder = size[None, :] > size[:, None] * (1 + _SINGLE)
    same = (size[None, :] >= size[:, None] * (1 - _SINGLE)) & np.tri(len(gram), k=-1, dtype=bool)
    own: NDArray[np.bool_] = ~(parallel & (louder | same)).any(1)
    return own


def least_squares(x: Array, y: Array, *, intercept: bool) -> tuple[Array, Array | None]:
    """Return the weight [outputs, channels, positions] of least ||y - sum_i x_i W_i^T - b||_F^2, and b with
    `intercept`.

    Where there are many, the one of least norm. What float32 cannot distinguish from 0 in `x` counts as 0.
    """
    samples, channels, positions = x.shape
    flat = x.reshape(samples, channels * positions)
    mean_x, mean_y = (flat.mean(0), y.mean(0)) if intercept else (np.zeros(flat.shape[1]), np.zeros(y.shape[1]))
    solution = np.linalg.lstsq(flat - mean_x, y - mean_y, rcond=_SINGLE)[0]
    weight: Array = solution.T.reshape(y.shape[1], channels, positions)
    return weight, mean_y - mean_x @ solution if intercept else None


def relative_error(x: Array, weight: Array, bias: Array, y: Array) -> float:
    """Return ||y - sum_i x_i W_i^T - b||_F^2 / ||y||_F^2; 0 where y is 0 and the outputs are not."""
    given = x.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T + bias
    error, size = float(((y - given) ** 2).sum()), float((y**2).sum())
    return error / size if size > 0 else error
