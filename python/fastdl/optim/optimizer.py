"""What all optimizers share: groups, runs of parameters, steps and state dicts.

A run is a stretch of parameters that lie one after the other in memory.  A step is one kernel call
per run; where some parameters have no gradient, one per stretch of those that have.  Clipping takes
a pass over the gradients first, for the norm is that of the whole group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastdl import _core
from fastdl._array import Array, assign, describe, is_float, on_host
from fastdl.errors import capture_error
from fastdl.optim.arena import runs_of, settle
from fastdl.optim.group import ParamGroup
from fastdl.optim.run import MASTER, Run
from fastdl.tape import Recorder, layout, layout_changed, mode
from fastdl.tensor import Tensor, zeros_like


class Optimizer:
    """Base of the optimizers.

    Making one moves parameters into a flat arena: arrays that ``p.numpy()`` returned earlier no
    longer follow them.
    """

    hyper_names: ClassVar[tuple[str, ...]]
    state_names: ClassVar[tuple[str, ...]]
    kernel_name: ClassVar[str]
    kernel_options: tuple[Any, ...] = ()

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: dict[str, Any]
    ) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self._runs: list[Run] = []
        self._layout = -1
        self._writes = layout.writes
        self._kernel: Callable[..., None] = getattr(_core, self.kernel_name)
        self._clip_norm = self.hyper_names.index("clip_norm")
        self.check(defaults)
        self._add_groups(_as_groups(self._name, params))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError unless the options are good."""
        raise NotImplementedError

    def state_in_use(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the state arrays that a step with these options needs."""
        raise NotImplementedError

    def _kernels_needed(self, options: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what a recorded step cannot follow when it changes."""
        return self.state_in_use(options), options["clip_norm"] != 0

    def options_changed(self, group: ParamGroup, before: Mapping[str, Any]) -> None:
        """Bring arrays and recordings up to date after an option was set."""
        if self._kernels_needed(group) == self._kernels_needed(before):
            return
        for run in self._runs:
            if run.group is group:
                for name in self.state_in_use(group):
                    run.add_state(name)
                run.forget_calls()
        layout_changed()

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        Parameters
        ----------
        param_group : mapping with "params" and any options

        Raises
        ------
        ValueError
            If an option is bad or a parameter is here already.
        """
        self._add_groups([param_group])

    def _add_groups(self, groups: Sequence[Mapping[str, Any]]) -> None:
        if mode.recorder is not None:
            raise capture_error("makes an optimizer", "make it outside of the captured function")
        prepared = []
        seen = {id(p) for group in self.param_groups for p in group.params}
        for given in groups:
            params = _check_params(self._name, given["params"], seen)
            options = self.defaults | {k: v for k, v in given.items() if k != "params"}
            self.check(options)
            prepared.append((params, options))
        settle([p for params, _ in prepared for p in params])
        for params, options in prepared:
            self._add_group(ParamGroup(self, params, options))

    def _add_group(self, group: ParamGroup) -> None:
        self.param_groups.append(group)
        for params in runs_of(group.params):
            run = Run(group, params)
            for name in self.state_in_use(group):
                run.add_state(name)
            self._runs.append(run)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; costs nothing.

        Parameters
        ----------
        set_to_none : bool
            If False, gradients become zeros instead of None.
        """
        if not set_to_none or mode.recorder is not None:
            for group in self.param_groups:
                for p in group.params:
                    p.grad = None if set_to_none else zeros_like(p)
            return
        for run in self._runs:
            for p in run.params:
                p._grad = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes loss and gradients anew; called first.

        Returns
        -------
        loss : what ``closure`` returned, else None

        Raises
        ------
        RuntimeError
            If a parameter was moved away (``Module.to``) since the optimizer was made.
        """
        loss = None if closure is None else closure()
        if self._layout != layout.version:
            self._check_homes()
        if self._writes != layout.writes:
            self._follow_parameters()
        if mode.recorder is not None:
            self._note_gradients(mode.recorder)
        for group in self.param_groups:
            group.update_device()
            if group.hyper[self._clip_norm] != 0:
                self._sum_squares(group)
        kernel = self._kernel
        for run in self._runs:
            run.claim_parameters()
            for p in run.params:
                if p._grad is None:
                    for i, j in run.stretches():
                        kernel(*run.call(i, j))
                    break
            else:
                kernel(*run.call(0, len(run.params)))
        return loss

    def _note_gradients(self, recorder: Recorder) -> None:
        for run in self._runs:
            for p in run.params:
                recorder.read(p, "_grad")

    def _sum_squares(self, group: ParamGroup) -> None:
        """Put the sum of squares of the group's gradients where its step reads it."""
        more = False
        for run in self._runs:
            if run.group is group:
                for part in run.gradients():
                    _core.sum_squares(part, group.squares, more)
                    more = True

    def _check_homes(self) -> None:
        for run in self._runs:
            if any(p._home is not home for p, home in zip(run.params, run.homes, strict=True)):
                raise RuntimeError(
                    f"{self._name}.step: parameters must stay where they were, got moved ones "
                    "(Module.to); make the optimizer anew"
                )
        self._layout = layout.version

    def _follow_parameters(self) -> None:
        for run in self._runs:
            run.follow_parameters()
        self._writes = layout.writes

    def _params(self) -> list[tuple[Run, int]]:
        """Run and place of every parameter, in the order of the groups."""
        return [(run, i) for run in self._runs for i in range(len(run.params))]

    def averages(self) -> dict[int, Array]:
        """Return id of a parameter -> its moving average, where ``ema_decay`` keeps one.

        An average that has not begun, because the parameter took no step since, is NaN.
        """
        return {
            id(run.params[i]): run.state_of("ema", i)
            for run, i in self._params()
            if "ema" in run.state
        }

    def state_dict(self) -> dict[str, Any]:
        """Return copies of state and options in torch's layout.

        Returns
        -------
        dict
            ``"state"``: number of the parameter -> its state by torch's names, for parameters that
            took a step; ``"param_groups"``: options, with the numbers under ``"params"``.
        """
        if mode.recorder is not None:
            raise capture_error("reads an optimizer's state", "do it outside of the function")
        self._follow_parameters()
        state = {}
        for number, (run, i) in enumerate(self._params()):
            if on_host(run.steps)[i] > 0:
                state[number] = self._export(run, i)
        groups, first = [], 0
        for group in self.param_groups:
            numbers = list(range(first, first + len(group.params)))
            groups.append({**group.options(), "params": numbers})
            first += len(numbers)
        return {"state": {n: s for n, s in state.items() if s}, "param_groups": groups}

    def _export(self, run: Run, i: int) -> dict[str, Array]:
        return {
            name: on_host(run.state_of(name, i)).copy()
            for name in (MASTER, *self.state_names)
            if name in run.state
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned: all of it or, after an error, nothing.

        Raises
        ------
        ValueError
            If groups, parameters, names or shapes differ, or an option is bad.
        TypeError
            If a dtype differs; nothing is cast.
        """
        if mode.recorder is not None:
            raise capture_error("loads an optimizer's state", "do it outside of the function")
        groups = self._check_groups(state_dict["param_groups"])
        loaded = self._check_state(state_dict["state"])
        for group, options in zip(self.param_groups, groups, strict=True):
            before = group.options()
            group._store(options)
            self.options_changed(group, before)
        self._writes = -1
        for number, (run, i) in enumerate(self._params()):
            run.clear_state(i)
            for name, value in loaded.get(number, {}).items():
                if name == "step":
                    run.set_steps(i, value)
                elif name in run.state:
                    assign(run.state_of(name, i), value)

    def _check_groups(self, given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        want = [len(g.params) for g in self.param_groups]
        got = [len(g["params"]) for g in given]
        if want != got:
            raise ValueError(
                f"{self._name}.load_state_dict: groups must hold {want} parameters, got {got}; "
                "make the optimizer for the same model first"
            )
        options = [
            {**own.options(), **{k: v for k, v in g.items() if k != "params"}}
            for own, g in zip(self.param_groups, given, strict=True)
        ]
        for o in options:
            self.check(o)
        return options

    def _check_state(self, given: Mapping[Any, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        places = self._params()
        known = {int(n): s for n, s in given.items()}
        if any(not 0 <= n < len(places) for n in known):
            raise ValueError(
                f"{self._name}.load_state_dict: state must be of parameters 0 to "
                f"{len(places) - 1}, got {sorted(known)}"
            )
        return {n: self._check_entry(n, places[n], s) for n, s in known.items()}

    def _check_entry(
        self, number: int, place: tuple[Run, int], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        run, i = place
        loaded: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            where = f"{self._name}.load_state_dict: {name} of parameter {number}"
            array = value._values("a copy") if isinstance(value, Tensor) else np.asarray(value)
            loaded[name] = self._check_value(where, name, array, run, i)
        return {"step": 1} | loaded if loaded else {}

    def _check_value(self, where: str, name: str, value: Array, run: Run, i: int) -> Any:
        if name == "step" and value.size == 1 and value.item() >= 0:
            return int(value.item())
        known = (MASTER, *self.state_names) if MASTER in run.state else self.state_names
        if name not in known:
            raise ValueError(f"{where} must be one of step, {', '.join(known)}")
        shape = run.params[i].shape
        wanted = f"{where} must be {run.dtype}({', '.join(map(str, shape))}), got {describe(value)}"
        if value.shape != shape:
            raise ValueError(wanted)
        if value.dtype != run.dtype:
            raise TypeError(wanted)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{self._name}: an optimizer belongs to its parameters and must not be copied; "
            "use state_dict() and a new optimizer"
        )

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(map(repr, self.param_groups))})"


def _as_groups(
    name: str, params: Iterable[Tensor] | Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    if isinstance(params, Tensor | np.ndarray | Mapping):
        raise TypeError(
            f"{name}: params must be an iterable of tensors or of dicts, got "
            f"{type(params).__name__}; use model.parameters()"
        )
    given: list[Any] = list(params)
    if not given:
        raise ValueError(f"{name}: params must hold at least one tensor, got none")
    return given if isinstance(given[0], Mapping) else [{"params": given}]


def _check_params(name: str, params: Tensor | Iterable[Tensor], seen: set[int]) -> list[Tensor]:
    checked = [params] if isinstance(params, Tensor) else list(params)
    for p in checked:
        if not isinstance(p, Tensor):
            raise TypeError(f"{name}: params must be tensors, got {type(p).__name__}")
        if p._node is not None or not is_float(p.dtype):
            raise ValueError(f"{name}: params must be leaf tensors of a float dtype, got {p!r}")
        if p.device != checked[0].device:
            raise ValueError(
                f"{name}: params of a group must be on one device, got {checked[0].device} and "
                f"{p.device}"
            )
        if id(p) in seen:
            raise ValueError(f"{name}: params must differ, got one twice of shape {p.shape}")
        seen.add(id(p))
    return checked
