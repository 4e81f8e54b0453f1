"""Inference programs: a model's forward pass as one native call."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous
from fastdl._recording import rebuilt
from fastdl.capture import CapturedStep, key_of
from fastdl.nn.module import Module
from fastdl.tape import layout, mode, no_grad
from fastdl.tensor import Tensor


class CompiledModel:
    """A model's forward pass in evaluation mode, off the tape, without Python in between.

    Made by `compile`.  It reads the parameters where they lie, so training goes on being seen, and
    may be called from several threads at once.  A new shape or dtype of the input is recorded on
    its first call.
    """

    def __init__(self, model: Module, max_shapes: int = 64) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"compile: model must be an nn.Module, got {type(model).__name__}")
        self.model = model
        #: The layout it was made for, see `predictor`.
        self.version = layout.version
        self._recording_lock = threading.RLock()
        self._forward = CapturedStep(self._call_model, max_shapes=max_shapes, state_guards=False)

    def _call_model(self, *inputs: Tensor) -> Any:
        return self.model(*inputs)

    def __call__(self, *inputs: Any) -> Any:
        """Return the model's result for arrays as new arrays.

        Parameters
        ----------
        *inputs : ndarrays
            What the model's ``forward`` takes.  Inside a captured function the result is made of
            Tensors, and its kernels become part of that recording.

        Raises
        ------
        CaptureError
            At the first call of a shape, if ``forward`` reads a value or branches on one.
        ValueError, TypeError
            If shapes or dtypes do not fit the model.
        """
        last = self._forward.last
        if last is not None:
            output = last.replay(*inputs)
            if output is not NotImplemented:
                return output if last.single else last.arrays_of(output)
        arrays = [contiguous(x._array if isinstance(x, Tensor) else np.asarray(x)) for x in inputs]
        if mode.recorder is None and self._forward.find(key_of(tuple(arrays), [])) is not None:
            return _as_arrays(self._forward(*arrays))
        with self._recording_lock:  # the model's mode is changed meanwhile
            result = self._in_eval_mode(arrays)
        return result if mode.recorder is not None else _as_arrays(result)

    def _in_eval_mode(self, arrays: list[Array]) -> Any:
        modes = [(m, m._training) for m in self.model.modules()]
        try:
            self.model.eval()
            with no_grad():
                return self._forward(*arrays)
        finally:
            for module, training in modes:
                module.training = training

    def program(self) -> _core.Program:
        """Return the program that was recorded last."""
        return self._forward.programs()[-1]

    def __str__(self) -> str:
        return str(self._forward)

    def __repr__(self) -> str:
        return f"<compiled {type(self.model).__name__}, {len(self._forward.programs())} recorded>"

    def __reduce__(self) -> Any:
        raise TypeError("compile: a compiled model must not be copied; compile the copied model")


def compile(model: Module, max_shapes: int = 64) -> CompiledModel:  # noqa: A001  (torch's name)
    """Return the model's forward pass as native programs, for inference.

    Parameters
    ----------
    model : nn.Module
        Run in evaluation mode, whatever mode it is in.  Programs are made anew when one of its
        attributes or modules is replaced or its parameters move in memory.
    max_shapes : int
        So many input shapes are kept.

    Returns
    -------
    compiled : CompiledModel
        ``compiled(X)`` -> ndarray, the bits of ``model.eval()(X)``.

    Raises
    ------
    TypeError
        If ``model`` is not a Module.

    Examples
    --------
    >>> policy = fastdl.compile(model)
    >>> action = policy(observation).argmax()
    """
    return CompiledModel(model, max_shapes)


def _as_arrays(x: Any) -> Any:
    return rebuilt(x, lambda t: t._array if isinstance(t, Tensor) else t)


def predictor(model: Module) -> CompiledModel | None:
    """Return the compiled form of a model that consists of fastdl's own modules, else None.

    The forward of a user's own module may do anything; it is compiled on request only.
    """
    if all(type(m).__module__.startswith("fastdl.") for m in model.modules()):
        return CompiledModel(model, max_shapes=8)
    return None
