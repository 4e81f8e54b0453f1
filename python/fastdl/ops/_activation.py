"""What activations share: element-wise functions whose derivative follows from their result."""

from __future__ import annotations

from fastdl import _core
from fastdl._array import Array
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


class Activation:
    """The kernels of an activation, and its place on the tape."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._forward_name, self._backward_name = f"{name}_forward", f"{name}_backward"

    def apply(self, X: ArrayLike, out: ArrayLike | None) -> ArrayLike:
        """Return act(X)."""
        x = array_of(self.name, "X", X)
        y = output(self.name, out, x, x.shape, () if out is None else (X,))
        getattr(_core, self._forward_name)(x, y)
        if out is not None:
            return out
        if not isinstance(X, Tensor):
            return y
        return result(y, (wants_grad(X),), self._differentiate, (y,), self.name)

    def derivative(self, dY: Array, Y: Array, out: Array | None) -> Array:
        """Return dY act'(X), from Y = act(X)."""
        op = self._backward_name
        dy, y = array_of(op, "dY", dY), array_of(op, "Y", Y)
        dX = output(op, out, y, y.shape)
        getattr(_core, op)(dy, y, dX)
        return dX

    def _differentiate(self, p: Pass, node: Node, dY: Array) -> None:
        (X,) = node.inputs
        assert X is not None
        dX = dY
        if p.must_differentiate(node):
            dX = p.place(X)
            getattr(_core, self._backward_name)(dY, node.saved[0], dX)
        p.add(X, dX)
