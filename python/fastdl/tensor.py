"""Tensor: an array, its gradient, and its place on the tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdl import _core, _dlpack, operators, tape
from fastdl._array import (
    ARRAYS,
    Array,
    as_dtype,
    contiguous,
    copy,
    describe,
    differentiable,
    is_bfloat16,
    on_host,
    one_beside,
    placed,
    to_device,
)
from fastdl.errors import capture_error
from fastdl.tape import Node, mode

if TYPE_CHECKING:
    from fastdl.optim.arena import Segment

ArrayLike: TypeAlias = "Tensor | Array"

_DTYPES = tuple(np.dtype(t) for t in ("f4", "f8", "i4", "i8", "u1"))


class Tensor:
    """An array on the tape.

    Parameters
    ----------
    array : ndarray of float32, float64, bfloat16, int32, int64 or uint8, any shape
        Shared, not copied, if it is C-contiguous and aligned; any other layout is copied.
    requires_grad : bool
        Whether `backward` stores a gradient here; only for float dtypes.
    device : "cpu" or "cuda", optional
        Where the elements are to be; the array is copied if it is elsewhere.

    Raises
    ------
    TypeError
        If ``array`` is not an ndarray of one of these dtypes.
    RuntimeError
        If ``device`` cannot be used; the text says what is missing.
    ValueError
        If there is no such device.
    """

    __slots__ = ("__weakref__", "_array", "_grad", "_home", "_node", "_requires_grad")
    __array_priority__ = 1000  # so that ndarray + Tensor is left to the Tensor

    _array: Array
    _requires_grad: bool
    _grad: Array | None
    _home: Segment | None
    _node: Node | None

    def __init__(
        self, array: ArrayLike, requires_grad: bool = False, device: str | None = None
    ) -> None:
        self._array = contiguous(_checked(array))
        if device is not None:
            self._array = to_device(self._array, _core.device_named(device))
        self._grad = self._home = self._node = None
        self._requires_grad = requires_grad and differentiable(self._array)
        if mode.recorder is not None:
            mode.recorder.created(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the elements."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._array.size

    @property
    def device(self) -> str:
        """Where the elements are: "cpu", "cuda"."""
        return self._array.device

    @property
    def is_leaf(self) -> bool:
        """Whether no operation on the tape made this tensor."""
        return self._node is None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor; settable on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self._node is not None:
            raise RuntimeError(
                "requires_grad: tensor must be a leaf, got the result of an operation; "
                "use .detach() first"
            )
        self._requires_grad = bool(value) and differentiable(self._array)
        if mode.recorder is None:
            tape.layout_changed()

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """Gradient since the last ``zero_grad()``, or None.

        A view of the buffer that later passes add to (for a parameter of an optimizer: that they
        write to); copy it to keep it.  Assigning copies the values in.
        """
        if mode.recorder is not None:
            mode.recorder.read(self, "_grad")
        return None if self._grad is None else wrap(self._grad)

    @grad.setter
    def grad(self, value: ArrayLike | None) -> None:
        array = None if value is None else contiguous(_like(self, value, "grad"))
        if mode.recorder is not None:
            mode.recorder.write(self, "_grad")
        if array is None:
            self._grad = None
        elif self._home is None:
            self._grad = copy(array)
        elif array is not self._home.grad:
            _core.copy(array, self._home.grad)
            self._grad = self._home.grad

    def numpy(self) -> Array:
        """Return the values as an array that shares memory with the tensor.

        Raises
        ------
        RuntimeError
            If the tensor is on a device: nothing is copied silently, use ``.cpu().numpy()``.
        CaptureError
            While a step is being recorded, as every way of reading a value does.
        """
        return self._read(".numpy()")

    def item(self) -> float | int:
        """Return the value of a tensor of one element as a Python number."""
        value: float | int = self._values(".item()").item()
        return value

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return self._values(".tolist()").tolist()

    def detach(self) -> Tensor:
        """Return a tensor that shares memory with this one and is not on the tape."""
        return Tensor(self._array)

    def __dlpack__(self, **options: Any) -> Any:
        """Return a DLPack capsule of the memory; see `fastdl.from_dlpack`."""
        return _dlpack.export(self, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _dlpack.dlpack_device(self._array)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface; only of tensors on a GPU."""
        return _dlpack.cuda_array_interface(self)

    def backward(self, grad: ArrayLike | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``.grad`` of every leaf it depends on.

        Parameters
        ----------
        grad : array of this tensor's shape and dtype, optional
            Gradient of the final result with respect to this tensor; 1 for a single element.
        retain_graph : bool
            Keep what the pass needs, for another pass over the same graph.

        Raises
        ------
        RuntimeError
            If no gradient is recorded for this tensor, or its graph has been freed.
        ValueError
            If ``grad`` has another shape, or is missing for more than one element.
        TypeError
            If ``grad`` has another dtype.
        """
        if not self._requires_grad:
            raise RuntimeError(
                "backward: tensor must depend on one with requires_grad=True, got a tensor "
                "without gradient"
            )
        tape.backward(self, self._seed(grad), retain_graph)

    def _seed(self, grad: ArrayLike | None) -> Array:
        if grad is not None:
            return contiguous(_like(self, grad, "backward"))
        if self._array.ndim == 0:
            return one_beside(self._array)
        if self._array.size != 1:
            raise ValueError(
                "backward: grad must be given for a tensor of more than one element, got none for "
                f"{describe(self._array)}"
            )
        ones = np.ones(self._array.shape, self._array.dtype)
        return tape.constant(placed(ones, self._array))

    def _read(self, how: str) -> Array:
        """Return the array for a use that shares its memory."""
        if mode.recorder is not None:
            raise capture_error(
                f"reads a value ({how})", "return the tensor from the function instead"
            )
        if not isinstance(self._array, np.ndarray):
            raise RuntimeError(
                f"Tensor: must be on cpu to be read ({how}), got one on {self.device}; "
                "use .cpu(), which copies"
            )
        return self._array

    def _values(self, how: str) -> Array:
        """Return the values for a use that copies them anyway."""
        on_device = mode.recorder is None and not isinstance(self._array, np.ndarray)
        return on_host(self._array) if on_device else self._read(how)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self._read("as an array"), dtype=dtype, copy=copy)

    def __float__(self) -> float:
        return float(self._values("float()").item())

    def __int__(self) -> int:
        return int(self._values("int()").item())

    def __bool__(self) -> bool:
        return bool(self._values("a branch or bool()"))

    def __len__(self) -> int:
        return len(self._array)

    def __eq__(self, other: object) -> Any:
        return self._read("a comparison") == _plain(other)

    def __ne__(self, other: object) -> Any:
        return self._read("a comparison") != _plain(other)

    def __lt__(self, other: object) -> Any:
        return self._read("a comparison") < _plain(other)

    def __le__(self, other: object) -> Any:
        return self._read("a comparison") <= _plain(other)

    def __gt__(self, other: object) -> Any:
        return self._read("a comparison") > _plain(other)

    def __ge__(self, other: object) -> Any:
        return self._read("a comparison") >= _plain(other)

    __hash__ = object.__hash__

    __add__ = __radd__ = operators.add
    __sub__ = operators.sub
    __rsub__ = operators.rsub
    __mul__ = __rmul__ = operators.mul
    __neg__ = operators.neg
    __matmul__ = operators.matmul
    __rmatmul__ = operators.rmatmul
    __getitem__ = operators.getitem
    sum = operators.sum
    mean = operators.mean
    amax = operators.amax
    log_softmax = operators.log_softmax
    gather = operators.gather
    to = operators.to
    cpu = operators.cpu

    def __repr__(self) -> str:
        name = type(self).__name__
        if mode.recorder is not None:
            return f"{name}({describe(self._array)}, being recorded)"
        text = np.array2string(on_host(self._array), separator=", ", prefix=name + "(")
        where = "" if self.device == "cpu" else f", device={self.device!r}"
        grad = ", requires_grad=True" if self._requires_grad else ""
        return f"{name}({text}, dtype={self.dtype}{where}{grad})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._values("a copy"), self._requires_grad, self.device)


def tensor(
    data: Any,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Return a tensor with a copy of ``data``.

    Parameters
    ----------
    data : ndarray, Tensor, number or nested sequence of numbers
    dtype : dtype, optional
        Converted to it; by default an array keeps its dtype, Python floats become float32 and
        integers int64.
    requires_grad, device
        As for `Tensor`; by default a Tensor stays on its device.

    Raises
    ------
    TypeError
        If the dtype is not one of float32, float64, bfloat16, int32, int64, uint8.
    RuntimeError, ValueError
        As `Tensor`.
    """
    if isinstance(data, Tensor):
        data, device = data._array, device or data.device
        data = data if dtype is None else on_host(data)
    if isinstance(data, ARRAYS) and dtype is None:
        return Tensor(copy(_checked(data)), requires_grad, device)
    array = np.array(data, dtype=None if dtype is None else as_dtype(dtype))
    if dtype is None and array.dtype == np.float64 and not isinstance(data, np.generic):
        array = array.astype(np.float32)
    return Tensor(tape.constant(array), requires_grad, device)


new_tensor: Callable[[type[Tensor]], Tensor] = object.__new__


def zeros_like(t: Tensor) -> Tensor:
    """Return zeros of the shape and dtype of ``t``, where it is."""
    return wrap(placed(tape.constant(np.zeros(t.shape, t.dtype)), t._array))


def wrap(array: Array) -> Tensor:
    """Make a tensor off the tape of an array that is known to be fit."""
    t = new_tensor(Tensor)
    t._array = array
    t._requires_grad = False
    t._grad = t._home = t._node = None
    return t


def _checked(array: ArrayLike) -> Array:
    if isinstance(array, Tensor):
        return array._array
    if isinstance(array, _core.DeviceArray):
        return array
    if not isinstance(array, np.ndarray | np.generic):
        raise TypeError(
            f"Tensor: array must be an ndarray, got {type(array).__name__}; "
            "use fastdl.tensor(...) for numbers and lists"
        )
    if array.dtype not in _DTYPES and not is_bfloat16(array.dtype):
        raise TypeError(
            "Tensor: array must be float32, float64, bfloat16, int32, int64 or uint8 in native "
            f"byte order, got {array.dtype}; convert with .astype(...)"
        )
    return np.asarray(array)


def _like(t: Tensor, value: ArrayLike, op: str) -> Array:
    array = value._array if isinstance(value, Tensor) else value
    own = t._array
    if isinstance(array, ARRAYS) and array.dtype == own.dtype and array.shape == own.shape:
        return array
    got = describe(array) if isinstance(array, ARRAYS) else type(value).__name__
    text = f"{op}: gradient must be {describe(own)}, got {got}"
    if not isinstance(array, ARRAYS):
        raise TypeError(f"{text}; use np.asarray(...)")
    if array.dtype != own.dtype:
        raise TypeError(f"{text}; convert with .astype(...)")
    raise ValueError(text)


def _plain(x: object) -> Any:
    return x._read("a comparison") if isinstance(x, Tensor) else x
