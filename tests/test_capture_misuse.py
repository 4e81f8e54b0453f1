"""capture: what a recording cannot repeat is refused, and errors leave everything as it was."""

import inspect
import re

import fastdl
import numpy as np
import pytest
from capture_steps import data, make
from fastdl import nn, ops, optim
from harness import EMULATOR

MISUSE = {
    "reads a value \\(.item\\(\\)\\)": lambda X: X.item(),
    "reads a value \\(.numpy\\(\\)\\)": lambda X: X.numpy(),
    "reads a value \\(.tolist\\(\\)\\)": lambda X: X.tolist(),
    "reads a value \\(float\\(\\)\\)": lambda X: float(X),
    "reads a value \\(int\\(\\)\\)": lambda X: int(X),
    "reads a value \\(a branch or bool\\(\\)\\)": lambda X: 1 if X else 2,
    "reads a value \\(as an array\\)": lambda X: np.exp(X),
    "reads a value \\(a comparison\\)": lambda X: X > 0,
    "reads a value \\(a copy\\)": lambda X: __import__("copy").deepcopy(X),
    "draws numbers for NumPy": lambda X: fastdl.Generator().numpy(),
    "seeds a generator": lambda X: fastdl.manual_seed(1),
    "sets initial values": lambda X: nn.init.zeros_(X),
    "makes an optimizer": lambda X: optim.SGD([nn.Parameter(np.ones(2))]),
    "uses an unaligned array": lambda X: ops.relu(np.zeros(9, "u1")[1:].view("f8")),
}


@pytest.mark.parametrize("what", MISUSE)
def test_what_cannot_be_repeated_is_refused_with_file_and_line(what):
    fn = MISUSE[what]
    line = inspect.getsourcelines(fn)[1]
    captured = fastdl.capture(fn)
    place = re.escape(__file__) + f":{line}"
    with pytest.raises(fastdl.CaptureError, match=f"capture: {place} {what}"):
        captured(np.array(1.0))
    assert not fastdl._core.recording()
    assert ops.relu(fastdl.Tensor(np.ones(1))).item() == 1
    assert captured.programs() == []


def test_setting_an_option_or_loading_inside_is_refused():
    model, opt, _ = make()

    def check(fn, text):
        with pytest.raises(fastdl.CaptureError, match=text):
            fastdl.capture(fn)(np.ones(1))

    check(lambda X: opt.param_groups[0].update(lr=1.0), r"sets group\['lr'\]")
    check(lambda X: opt.state_dict(), "reads an optimizer's state")
    check(lambda X: opt.load_state_dict({}), "loads an optimizer's state")
    check(lambda X: model.state_dict(), "reads a value")
    check(lambda X: model.load_state_dict({}), "loads a state dict")
    assert opt.param_groups[0]["lr"] == 1e-2


def test_repr_does_not_read_while_recording():
    texts = []
    fastdl.capture(lambda X: texts.append(repr(X)))(np.ones((2, 3)))
    assert texts == ["Tensor(float64(2, 3), being recorded)"]


def test_an_error_in_the_function_ends_the_recording():
    _, _, step = make()
    captured = fastdl.capture(step)
    X, y = data()
    with pytest.raises(ValueError, match="affine"):
        captured(X[:, :3], y)
    with pytest.raises(ValueError, match="cross_entropy"):
        captured(X, y + 2)
    assert not fastdl._core.recording()
    assert captured.programs() == []
    captured(X, y)
    assert len(captured.programs()) == 1


def test_labels_out_of_range_are_refused_in_a_replay_before_anything_changes():
    model, _, step = make()
    captured = fastdl.capture(step)
    X, y = data()
    captured(X, y)
    before = model.state_dict()
    with pytest.raises(ValueError, match="cross_entropy"):
        captured(X, y + 1)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.skipif(EMULATOR not in fastdl._core.backends(), reason="needs FASTDL_CUEMU")
def test_arguments_on_a_device_are_refused_before_and_after_a_recording():
    X = np.ones((2, 3))
    there = fastdl.Tensor(X, device=EMULATOR)
    step, compiled = fastdl.capture(lambda *args: ops.relu(args[0])), fastdl.compile(nn.ReLU())
    for _ in range(2):
        for call in (lambda: step(there), lambda: step(X, there), lambda: compiled(there)):
            with pytest.raises(RuntimeError, match="arguments must be on cpu, got one on cuemu"):
                call()
        step(X)
        compiled(X)
