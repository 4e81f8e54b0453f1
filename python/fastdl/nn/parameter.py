"""A tensor that a module learns."""

from __future__ import annotations

from fastdl.tensor import ArrayLike, Tensor


class Parameter(Tensor):
    """A leaf tensor that modules list as their parameter.

    Parameters
    ----------
    array : ndarray of float32 or float64, any shape
        Shared, not copied, if it is C-contiguous.
    requires_grad : bool
        False freezes the parameter.
    device : "cpu" or "cuda", optional
        As for `Tensor`.

    Raises
    ------
    TypeError
        If ``array`` is not an ndarray of float32 or float64.
    """

    __slots__ = ()

    def __init__(
        self, array: ArrayLike, requires_grad: bool = True, device: str | None = None
    ) -> None:
        super().__init__(array, requires_grad, device)
