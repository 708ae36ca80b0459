"""Linear centred kernel alignment: the cosine of two centred Gram matrices."""

from torch import Tensor

from src.similarity.grams import Grams
from src.similarity.samples import Undefined, matrices


def linear_cka(x, y) -> float:
    """Linear CKA of two representations of the same n samples, in [0, 1] (Kornblith et al. 2019, equation 4).

    With more features than samples it is near 1 for all representations; see `debiased_cka`.

    Args:
        x, y: (n, ...), array or tensor; each sample is flattened.
    Raises:
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant over the samples.
    """
    x, y = matrices(x, y)
    if len(x) < max(x.shape[1], y.shape[1]):
        return float(cosines((x @ x.T)[None], (y @ y.T)[None]))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def debiased_cka(x, y) -> float:
    """Linear CKA by the unbiased estimator of HSIC, at most 1 (Song et al. 2012, JMLR 13).

    For independent representations it is about 0 on average, so it may be negative.

    Args:
        x, y: (n, ...) with n of at least 4, array or tensor; each sample is flattened.
    Raises:
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: there are fewer than four samples, or one
            representation is constant over them.
    """
    x, y = matrices(x, y)
    if len(x) < 4:
        raise Undefined(f"the unbiased estimator of HSIC needs at least 4 samples, not {len(x)}")
    return float(cosines(u_centred((x @ x.T)[None]), u_centred((y @ y.T)[None])))


def u_centred_grams(grams: Grams) -> Tensor:
    """Return `u_centred` matrices, whose cosines are the debiased CKA."""
    return u_centred(grams.centred)


def u_centred(grams: Tensor) -> Tensor:
    """Centre Gram matrices (R, n, n) without their diagonals, which become 0 (Székely and Rizzo 2014, definition 2).

    Inner products of such matrices are n(n − 3) times the unbiased HSIC of Song et al. 2012.
    """
    n = grams.shape[-1]
    grams = grams.clone()
    diagonal = grams.diagonal(dim1=1, dim2=2)
    diagonal.zero_()
    sums = grams.sum(2) / (n - 2)  # (R, n)
    grams -= sums[:, :, None]
    grams -= sums[:, None, :]
    grams += (sums.sum(1) / (n - 1))[:, None, None]
    diagonal.zero_()
    return grams


def cosines(matrices1: Tensor, matrices2: Tensor) -> Tensor:
    """Return the cosines (R1, R2) between matrices (R1, n, n) and (R2, n, n) as vectors of n² numbers."""
    return unit(matrices1).flatten(1) @ unit(matrices2).flatten(1).T


def unit(matrices: Tensor) -> Tensor:
    """Divide matrices (R, n, n) by their Frobenius norms."""
    return matrices / matrices.flatten(1).norm(dim=1)[:, None, None]
