"""Module: what layers and models have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastdl._array import Array, destination, is_float
from fastdl.nn._predict import FEW_ROWS, predict_plainly
from fastdl.nn._state import Entry, apply_state, check_state, convert
from fastdl.nn.parameter import Parameter
from fastdl.tape import layout, layout_changed, mode, no_grad
from fastdl.tensor import ArrayLike, Tensor, zeros_like

if TYPE_CHECKING:
    from fastdl.inference import CompiledModel

_M = TypeVar("_M", bound="Module")

_ABSENT = object()


class IncompatibleKeys(NamedTuple):
    """What `Module.load_state_dict` found missing and unexpected."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Call(threading.local):
    inside: bool = False


_call = _Call()


class Module:
    """Base of layers and models: subclasses define ``forward``.

    Parameters, sub-modules and buffers are plain attributes; nothing needs to be registered except
    buffers (`register_buffer`).

    Calling a module with Tensors puts it on the tape.  Calling it with ndarrays gives ndarrays: in
    training mode the call is kept for `backward` by hand, in eval mode or under `no_grad` it is
    inference only.
    """

    _training: bool = True
    _buffers: tuple[str, ...] = ()
    _in_float32: bool = False  # also in a model of bfloat16
    _by_hand: tuple[Tensor, Tensor] | None = None
    _compiled: CompiledModel | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; recordings that may depend on its old value are made anew."""
        before = vars(self).get(name, _ABSENT)
        if before is not value and before is not _ABSENT and name[0] != "_":
            activation = isinstance(value, Tensor) and not isinstance(value, Parameter)
            if not activation:
                layout_changed()
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        layout_changed()
        object.__delattr__(self, name)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to copy or pickle: compiled programs belong to this object."""
        return {name: value for name, value in vars(self).items() if name != "_compiled"}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; defined by subclasses."""
        raise NotImplementedError(f"{type(self).__name__}: forward must be defined, got none")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`; ndarrays in, ndarrays out."""
        if _call.inside:
            return self.forward(*args, **kwargs)
        _call.inside = True
        try:
            if not args or isinstance(args[0], Tensor):
                return self.forward(*args, **kwargs)
            if self._training and mode.enabled:
                return self._forward_by_hand(*args, **kwargs)
            with no_grad():
                return _unwrapped(self.forward(*map(_wrapped, args), **kwargs))
        finally:
            _call.inside = False

    def _forward_by_hand(self, *args: Any, **kwargs: Any) -> Any:
        tensors = [_wrapped(a) for a in args]
        X = tensors[0]
        if isinstance(X, Tensor) and is_float(X.dtype):
            X.requires_grad_()
        Y = self.forward(*tensors, **kwargs)
        if isinstance(X, Tensor) and isinstance(Y, Tensor) and Y.requires_grad:
            self._by_hand = (X, Y)
        return _unwrapped(Y)

    def backward(self, dY: ArrayLike | None = None) -> Array | None:
        """Go back through the last call with arrays in training mode.

        Parameters
        ----------
        dY : array of the result's shape and dtype, optional
            Gradient with respect to the result; 1 for a single element, as a loss is.

        Returns
        -------
        dX : ndarray like the call's first argument, None if that holds integers

        Gradients of parameters are added to their ``.grad``.

        Raises
        ------
        RuntimeError
            If there was no such call since the last `backward`.
        ValueError, TypeError
            If ``dY`` has another shape or dtype than the result.
        """
        if self._by_hand is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: module must have been called with an ndarray in "
                "training mode since the last backward, got no such call"
            )
        X, Y = self._by_hand
        Y.backward(dY)
        self._by_hand = None
        return X._grad

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        if mode.recorder is not None:
            mode.recorder.read(self, "_training")
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        if mode.recorder is not None:
            mode.recorder.write(self, "_training")
        self._training = bool(value)

    def train(self: _M, mode: bool = True) -> _M:
        """Put this module and all below it into training mode; return the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: _M) -> _M:
        """Put this module and all below it into evaluation mode; return the module."""
        return self.train(False)

    def register_buffer(self, name: str, array: Array | None) -> None:
        """Make ``array`` an attribute that belongs to the state but is not learned.

        Parameters
        ----------
        name : str
        array : ndarray or None
            None reserves the name; it takes no part in the state.
        """
        setattr(self, name, array)
        if name not in self._buffers:
            self._buffers = (*self._buffers, name)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield ``(name, module)`` of the direct sub-modules, in the order they were set."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """Yield the direct sub-modules."""
        return (child for _, child in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield ``(path, module)`` of this module and all below it, each module once."""
        seen: set[Module] = set()
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            path, module = stack.pop()
            if module in seen:
                continue
            seen.add(module)
            yield path, module
            below = [(_join(path, name), child) for name, child in module.named_children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield ``(path, parameter)``, each parameter once."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def parameters(self) -> Iterator[Parameter]:
        """Yield all parameters, each once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(path, array)`` of all buffers."""
        for path, module in self.named_modules():
            for name in module._buffers:
                value = getattr(module, name)
                if value is not None:
                    yield _join(path, name), value

    def buffers(self) -> Iterator[Array]:
        """Yield all buffers."""
        return (array for _, array in self.named_buffers())

    def _state(self) -> dict[str, Entry]:
        """Every parameter and buffer by its path, shared ones under each path."""
        state: dict[str, Entry] = {}
        for path, module in _paths(self):
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    state[_join(path, name)] = value
            for name in module._buffers:
                if getattr(module, name) is not None:
                    state[_join(path, name)] = getattr(module, name)
        return state

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by name (``"0.W"``), as ndarrays.

        Unlike torch's, the arrays do not follow the model when training goes on.
        """
        return {
            name: (x._values("a copy") if isinstance(x, Tensor) else x).copy()
            for name, x in self._state().items()
        }

    def load_state_dict(
        self, state_dict: Mapping[str, ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy values into parameters and buffers: all of them or, after an error, none.

        Parameters
        ----------
        state_dict : mapping of name to array, as `state_dict` returns it
        strict : bool
            If False, missing and unexpected names are reported, not refused.

        Returns
        -------
        missing_keys, unexpected_keys : lists of str

        Raises
        ------
        ValueError
            If names are missing or unexpected, or a shape differs.
        TypeError
            If a dtype differs; nothing is cast.
        """
        own = self._state()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        values = check_state(own, state_dict, missing, unexpected, strict)
        apply_state(own, values)
        return IncompatibleKeys(missing, unexpected)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; costs nothing.

        Parameters
        ----------
        set_to_none : bool
            If False, gradients become zeros instead of None.
        """
        for p in self.parameters():
            p.grad = None if set_to_none else zeros_like(p)

    def requires_grad_(self: _M, requires_grad: bool = True) -> _M:
        """Freeze (False) or unfreeze all parameters; return the module."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def apply(self: _M, fn: Callable[[Module], object]) -> _M:
        """Call ``fn`` with this module and all below it; return the module."""
        for module in list(self.modules()):
            fn(module)
        return self

    def to(
        self: _M,
        target: npt.DTypeLike | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        device: str | None = None,
    ) -> _M:
        """Move parameters and buffers to a device, or convert the float ones; return the module.

        Gradients are dropped, and an optimizer made before must be made anew.

        Parameters
        ----------
        target : "cpu", "cuda", or a float dtype: ``device`` or ``dtype``, whichever it names
        dtype : float32, float64 or bfloat16, optional
            With "bfloat16" those of BatchNorm1d and LayerNorm become float32.
        device : "cpu" or "cuda", optional
            On a device buffers are Tensors, on the CPU ndarrays.

        Raises
        ------
        TypeError
            If ``dtype`` is another one; if neither is given, or one twice.
        ValueError, RuntimeError
            If there is no such device, or it cannot be used; the text says what is missing.
        """
        convert(self, *destination(target, dtype, device))
        return self

    def predict(self, X: ArrayLike, batch_size: int = 4096) -> Array:
        """Return the result for all rows of ``X`` in evaluation mode, off the tape.

        Parameters
        ----------
        X : (N, ...)
        batch_size : int
            Rows that go through at a time; the result does not depend on it.

        Returns
        -------
        Y : ndarray (N, ...)
        """
        compiled = self._compiled
        if (
            compiled is not None
            and compiled.version == layout.version
            and type(X) is np.ndarray
            and len(X) <= FEW_ROWS <= batch_size
        ):
            Y: Array = compiled(X)
            return Y
        return predict_plainly(self, X.numpy() if isinstance(X, Tensor) else X, batch_size)

    def summary(self) -> str:
        """Return a table of all modules with parameters: name, type, shapes, number of values."""
        rows = [("name", "type", "parameters", "values")]
        for path, module in self.named_modules():
            own = [(n, v) for n, v in vars(module).items() if isinstance(v, Parameter)]
            shapes = " ".join(f"{n}{v.shape}".replace(" ", "") for n, v in own)
            size = sum(v.size for _, v in own)
            rows.append((path or "(model)", type(module).__name__, shapes, f"{size:,}"))
        total = sum(p.size for p in self.parameters())
        rows.append(("total", "", "", f"{total:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(w) if i == 3 else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        below = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not below:
            return f"{type(self).__name__}({self.extra_repr()})"
        text = "\n".join(below).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {text}\n)"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _paths(root: Module) -> Iterator[tuple[str, Module]]:
    """Every path to every module, a shared module once for each path."""
    stack = [("", root)]
    while stack:
        path, module = stack.pop()
        yield path, module
        below = [(_join(path, name), child) for name, child in module.named_children()]
        stack.extend(reversed(below))


def _wrapped(x: Any) -> Any:
    return Tensor(x) if isinstance(x, np.ndarray) else x


def _unwrapped(y: Any) -> Any:
    return y.numpy() if isinstance(y, Tensor) else y
