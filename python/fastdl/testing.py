"""Checks for users' tests: gradients, closeness, same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdl import config
from fastdl._array import Array, describe
from fastdl.tape import no_grad
from fastdl.tensor import Tensor

_TOLERANCES = {np.dtype(np.float32): (1.3e-6, 1e-5), np.dtype(np.float64): (1e-7, 1e-7)}


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-4,
) -> bool:
    """Compare the gradients of ``fn`` with central differences; return True.

    Parameters
    ----------
    fn : callable
        Takes ``inputs``, returns a Tensor.
    inputs : Tensor or sequence of Tensor
        Those that require gradients must be float64; their ``.grad`` is left as it was.
    eps : float
        Step of the differences.
    atol, rtol : float

    Raises
    ------
    AssertionError
        If a gradient differs; the text names the input and the worst element.
    TypeError
        If an input that requires a gradient is not float64.
    ValueError
        If no input requires a gradient.

    Notes
    -----
    An array-valued result is reduced with fixed random weights of its shape.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad]
    if not checked:
        raise ValueError("gradcheck: an input must require a gradient, got none that does")
    for i in checked:
        if tensors[i].dtype != np.float64:
            raise TypeError(f"gradcheck: input {i} must be float64, got {tensors[i].dtype}")
    dY, gradients = _analytic(fn, tensors, checked)
    for i, analytic in zip(checked, gradients, strict=True):
        numeric = _numeric(fn, tensors, i, dY, eps)
        assert_close(analytic, numeric, rtol=rtol, atol=atol, what=f"gradient of input {i}")
    return True


def _analytic(
    fn: Callable[..., Tensor], tensors: Sequence[Tensor], checked: Sequence[int]
) -> tuple[Array, list[Array]]:
    before = [tensors[i].grad for i in checked]
    kept = [None if g is None else g.numpy().copy() for g in before]
    try:
        for i in checked:
            tensors[i].grad = None
        Y = fn(*tensors)
        dY = np.asarray(np.random.default_rng(0).uniform(0.5, 1.5, Y.shape), Y.dtype)
        Y.backward(dY)
        return dY, [_grad_or_zeros(tensors[i]) for i in checked]
    finally:
        for i, g in zip(checked, kept, strict=True):
            tensors[i].grad = g


def _grad_or_zeros(t: Tensor) -> Array:
    return np.zeros(t.shape) if t.grad is None else t.grad.numpy().copy()


def _numeric(
    fn: Callable[..., Tensor], tensors: Sequence[Tensor], i: int, dY: Array, eps: float
) -> Array:
    x = tensors[i]._array
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        value = x[index]
        sides = []
        for step in (eps, -eps):
            x[index] = value + step
            with no_grad():
                sides.append(float(np.sum(fn(*tensors).numpy() * dY)))
        x[index] = value
        gradient[index] = (sides[0] - sides[1]) / (2 * eps)
    return gradient


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    what: str = "values",
) -> None:
    """Raise AssertionError unless ``|actual - expected| <= atol + rtol |expected|`` everywhere.

    Parameters
    ----------
    actual, expected : ndarray or Tensor, of one shape and dtype
    rtol, atol : float, optional
        By default torch's: 1.3e-6 and 1e-5 for float32, 1e-7 for float64, 0 for integers.
    what : str
        Names the values in the error text.

    Notes
    -----
    NaN equals NaN, and infinities equal themselves.
    """
    a, e = np.asarray(actual), np.asarray(expected)
    if a.shape != e.shape or a.dtype != e.dtype:
        raise AssertionError(f"{what} must be {describe(e)}, got {describe(a)}")
    default_rtol, default_atol = _TOLERANCES.get(a.dtype, (0.0, 0.0))
    rtol = default_rtol if rtol is None else rtol
    atol = default_atol if atol is None else atol
    bad = ~np.isclose(a, e, rtol=rtol, atol=atol, equal_nan=True)
    if bad.any():
        error = np.where(bad, np.abs(a.astype(float) - e.astype(float)), -1.0)
        worst = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), a.shape)
        place = tuple(map(int, worst))
        raise AssertionError(
            f"{what} must be close (rtol={rtol:g}, atol={atol:g}): {bad.sum()} of {bad.size} "
            f"differ, worst at {place}: expected {e[place]}, got {a[place]}"
        )


def assert_deterministic(
    fn: Callable[..., Any], *args: Any, threads: Sequence[int] = (1, 2, 3, 8), repeats: int = 2
) -> None:
    """Raise AssertionError unless ``fn(*args)`` gives the same bits for every number of threads.

    Parameters
    ----------
    fn : callable
        Returns a Tensor, an array, or a tuple or list of them; must not change its arguments.
    *args : anything
    threads : sequence of int
    repeats : int
        Calls per number of threads.
    """
    before = config.get_num_threads()
    first: list[bytes] | None = None
    try:
        for n in threads:
            config.set_num_threads(n)
            for call in range(repeats):
                bits = _bits(fn(*args))
                first = bits if first is None else first
                if bits != first:
                    raise AssertionError(
                        f"results must have the same bits, got others with {n} threads, call {call}"
                    )
    finally:
        config.set_num_threads(before)


def _bits(x: Any) -> list[bytes]:
    parts = x if isinstance(x, tuple | list) else [x]
    return [np.asarray(part).tobytes() for part in parts]
