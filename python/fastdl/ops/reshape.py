"""Another shape for the same elements."""

from __future__ import annotations

from fastdl._array import Array, describe
from fastdl.ops._call import array_of, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def reshape(X: ArrayLike, shape: int | tuple[int, ...]) -> ArrayLike:
    """Return ``X`` with another shape, sharing memory where ``X`` is contiguous.

    Parameters
    ----------
    X : any dtype and shape
    shape : int or tuple of int
        One size may be -1: what is left.

    Raises
    ------
    ValueError
        If the number of elements differs.
    """
    x = array_of("reshape", "X", X)
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ValueError(
            f"reshape: shape must hold the {x.size} elements of {describe(x)}, got {shape}"
        ) from None
    return result(y, (wants_grad(X),), _backward, ()) if isinstance(X, Tensor) else y


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    p.add(X, dY.reshape(X.shape), owned=False)
