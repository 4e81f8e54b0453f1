"""The tape: nodes in execution order, and the backward pass over them.

A node belongs to one result.  It knows its sequence number, the input tensors that want a gradient
(``None`` for the others), a function that turns dY into their gradients, and what that function
needs.  Going through the reachable nodes by falling sequence number is the execution order
reversed, so every gradient is complete when its node's turn comes.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from fastdl import _core
from fastdl._array import Array, accumulate, copy, empty

if TYPE_CHECKING:
    from fastdl.tensor import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")

Backward: TypeAlias = "Callable[[Pass, Node, Array], None]"


class Recorder:
    """Which Python-side state a recorded step depends on, and how it leaves that state.

    State is an attribute of an object: a leaf's gradient, a module's training flag.  What a step
    reads before writing must be the same at a replay (a guard); what it leaves is set again.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._local: dict[int, Any] = {}
        self.guards: list[tuple[Any, str, Any]] = []
        self.constants: list[Array] = []
        self._overwritten: list[tuple[Array, Array]] = []

    def overwrites(self, array: Array) -> None:
        """Note that the step is about to overwrite an array of the user's."""
        self._overwritten.append((array, array.copy()))

    def created(self, obj: Any) -> None:
        """Note that ``obj`` is made inside the step, so its state is no state from outside."""
        self._local[id(obj)] = obj

    def forget_local(self) -> None:
        """Let go of what was made inside the step."""
        self._local.clear()

    def write(self, obj: Any, name: str) -> bool:
        """Note that ``obj.name`` is about to be set; return whether it had not been touched."""
        key = (id(obj), name)
        if id(obj) in self._local or key in self._seen:
            return False
        self._seen[key] = obj, getattr(obj, name)
        return True

    def read(self, obj: Any, name: str) -> None:
        """Note that the step depends on ``obj.name``."""
        if self.write(obj, name):
            self.guards.append((obj, name, getattr(obj, name)))

    def finals(self) -> list[tuple[Any, str, Any]]:
        """Return the state as it is now, for everything that was touched."""
        return [(obj, name, getattr(obj, name)) for (_, name), (obj, _) in self._seen.items()]

    def undo(self) -> None:
        """Set everything that was touched back to what it was."""
        for (_, name), (obj, value) in self._seen.items():
            setattr(obj, name, value)
        for array, values in reversed(self._overwritten):
            array[...] = values


class _Mode(threading.local):
    enabled: bool = True
    recorder: Recorder | None = None


class _Layout:
    version: int = 0
    writes: int = 0


mode = _Mode()
layout = _Layout()
_next_seq = itertools.count().__next__


def constant(array: Array) -> Array:
    """Return ``array``, whose values a recorded step may take for constant."""
    if mode.recorder is not None:
        mode.recorder.constants.append(array)
    return array


def layout_changed() -> None:
    """Say that parameters moved in memory or changed their role: recordings are out of date."""
    layout.version += 1


def parameters_written() -> None:
    """Say that parameters got values from elsewhere than their optimizer."""
    layout.writes += 1


def is_grad_enabled() -> bool:
    """Return whether operations of this thread are put on the tape."""
    return mode.enabled


class no_grad:  # noqa: N801  (torch's name)
    """Context manager and decorator: operations of this thread stay off the tape.

    Examples
    --------
    >>> with no_grad():
    ...     is_grad_enabled()
    False
    """

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(mode.enabled)
        mode.enabled = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mode.enabled = self._before.pop()

    def __call__(self, fn: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return ``fn`` off the tape."""

        @functools.wraps(fn)
        def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with no_grad():
                return fn(*args, **kwargs)

        return wrapper


class Node:
    """One operation on the tape, and the activation that its result is the output of, or "none"."""

    __slots__ = ("activation", "backward", "inputs", "saved", "seq")

    def __init__(
        self,
        inputs: tuple[Tensor | None, ...],
        backward: Backward,
        saved: tuple[Any, ...],
        activation: str = "none",
    ) -> None:
        self.seq: int = _next_seq()
        self.inputs = inputs
        self.backward: Backward | None = backward
        self.saved = saved
        self.activation = activation

    def free(self) -> None:
        """Drop everything the backward pass needed."""
        self.backward, self.inputs, self.saved = None, (), ()


class Pass:
    """One backward pass: the gradients on their way, and where new ones are put.

    An operation asks `place` (or `pair`) where to write a gradient and hands it in with `add`.  A
    leaf's first gradient is written straight into the leaf's own buffer.

    The derivative of an activation is taken once, where it costs least: an operation that can
    multiply the gradient of its input by act'(input) on the way asks `take_derivative`, and the
    operation of that input is told by `must_differentiate`.
    """

    __slots__ = ("_differentiated", "_grads", "_owned", "_stored", "_uses")

    def __init__(self, uses: dict[Node, int] | None = None) -> None:
        self._grads: dict[Node, Array] = {}
        self._owned: set[Node] = set()
        self._stored: list[Tensor] = []
        self._uses = uses or {}
        self._differentiated: set[Node] = set()

    def take_derivative(self, t: Tensor) -> str:
        """Return the activation through which the caller's gradient of ``t`` has to go, or "none".

        Only the single user of ``t`` in this pass may do it: gradients must add up first.
        """
        node = t._node
        if node is None or node.activation == "none" or self._uses.get(node) != 1:
            return "none"
        self._differentiated.add(node)
        return node.activation

    def must_differentiate(self, node: Node) -> bool:
        """Return whether the gradient of ``node`` still has to go through its activation."""
        return node.activation != "none" and node not in self._differentiated

    def place(self, t: Tensor) -> Array:
        """Return an array for the gradient of ``t``, to be overwritten."""
        if t._node is not None or t._grad is not None:
            return empty(t._array, t._array.shape, t._array.dtype)
        home = t._home
        a = t._array
        t._grad = empty(a, a.shape, a.dtype) if home is None else home.grad
        self._stored.append(t)
        return t._grad

    def pair(self, a: Tensor | None, b: Tensor | None) -> tuple[Array | None, Array | None, bool]:
        """Return arrays for the gradients of two parameters, and whether to add to them."""
        if a is not b and _adds(a) and _adds(b):
            return None if a is None else a._grad, None if b is None else b._grad, True
        return None if a is None else self.place(a), None if b is None else self.place(b), False

    def add(self, t: Tensor, d: Array, owned: bool = True) -> None:
        """Deliver the gradient ``d`` of ``t``; ``owned`` says that nobody else uses ``d``."""
        node = t._node
        if node is None:
            self._add_to_leaf(t, d)
        elif node not in self._grads:
            self._grads[node] = d
            if owned:
                self._owned.add(node)
        else:
            if node not in self._owned:
                self._grads[node] = copy(self._grads[node])
                self._owned.add(node)
            accumulate(d, self._grads[node])

    def _add_to_leaf(self, t: Tensor, d: Array) -> None:
        if d is t._grad:
            return
        if t._grad is None:
            _core.copy(d, self.place(t))
        else:
            accumulate(d, t._grad)

    def run(self, order: list[Node], grad: Array, retain_graph: bool) -> None:
        """Go through ``order``; ``grad`` is the gradient of its first node's result."""
        self._grads[order[0]] = grad
        try:
            for node in order:
                assert node.backward is not None
                node.backward(self, node, self._grads.pop(node))
        except BaseException:
            for t in self._stored:
                t._grad = None
            raise
        if not retain_graph:
            for node in order:
                node.free()


def _adds(t: Tensor | None) -> bool:
    """Whether a gradient of ``t`` can be added where the last one is."""
    return t is None or (t._grad is not None and t._node is None)


def _reachable(root: Node) -> dict[Node, int]:
    """Return the nodes that ``root`` depends on, latest first, and how often each is used there."""
    uses = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.backward is None:
            raise RuntimeError(
                "backward: the graph must not have been used, got one that a backward pass has "
                "freed; pass retain_graph=True to the first pass, or run the forward pass again"
            )
        for t in node.inputs:
            if t is None or t._node is None:
                continue
            if t._node not in uses:
                uses[t._node] = 0
                stack.append(t._node)
            uses[t._node] += 1
    return {n: uses[n] for n in sorted(uses, key=lambda node: node.seq, reverse=True)}


def backward(root: Tensor, grad: Array, retain_graph: bool) -> None:
    """Add ``grad`` times d root / d leaf to the gradient of every leaf that ``root`` depends on."""
    recorder = mode.recorder
    if root._node is None:
        if recorder is not None:
            recorder.read(root, "_grad")
        Pass().add(root, grad, owned=False)
        return
    uses = _reachable(root._node)
    if recorder is not None:
        for node in uses:
            for t in node.inputs:
                if t is not None and t._node is None:
                    recorder.read(t, "_grad")
    Pass(uses).run(list(uses), grad, retain_graph)
