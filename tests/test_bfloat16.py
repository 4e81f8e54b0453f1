"""bfloat16 in the memory of a device: Tensors, operations, and optimizers with float32 weights.

Kernels compute in float32 and cut their work as for float32, so they give the results of float32 on
the same numbers, rounded where an array stores bfloat16: to the last bit.
"""

from __future__ import annotations

import copy
import pickle

import fastdl as fd
import ml_dtypes
import numpy as np
import pytest
from fastdl import _core, ops
from harness import BF16, EMULATOR
from subprocesses import python

pytestmark = pytest.mark.skipif(EMULATOR not in _core.backends(), reason="needs FASTDL_CUEMU")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers that bfloat16 holds, in float32."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return x.astype(BF16).astype(np.float32)


def there(x: np.ndarray, dtype: str = "bfloat16", **options) -> fd.Tensor:
    return fd.tensor(x, dtype=dtype, device=EMULATOR, **options)


def values(t: fd.Tensor) -> np.ndarray:
    return t.detach().cpu().numpy()


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


X = numbers(8, 5)
LABELS = np.arange(8) % 5

# ---- tensors ------------------------------------------------------------------------------------


def test_values_are_rounded_to_nearest_even_and_read_back():
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1e-40, np.nan, -np.inf, 3.4e38], np.float32)
    t = there(x)
    assert fd.bfloat16 == ml_dtypes.bfloat16 and t.dtype == fd.bfloat16 and t.device == EMULATOR
    assert same(values(t), x.astype(BF16))
    assert t[:2].tolist() == [1.0, 1 + 2**-6] and t[0].item() == 1.0 and float(t[1]) == 1 + 2**-6
    assert repr(t[:2]) == "Tensor([1, 1.01562], dtype=bfloat16, device='cuemu')"
    assert len(fd.Tensor(x.astype(BF16), device=EMULATOR)) == 6
    for again in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert again.device == EMULATOR and same(values(again), values(t))


def test_device_and_dtype_are_named_in_one_call_as_in_torch():
    x, model = fd.Tensor(X), fd.nn.Affine(5, 4)
    for t in (
        x.to(EMULATOR, "bfloat16"),
        x.to(device=EMULATOR, dtype=fd.bfloat16, non_blocking=True),
        x.to(fd.bfloat16, device=EMULATOR),
        model.to(device=EMULATOR, dtype="bfloat16").W,
    ):
        assert t.device == EMULATOR and t.dtype == fd.bfloat16
    assert x.to(device="cpu") is x and x.to(dtype=np.float32) is x
    for holder in (x, model):
        with pytest.raises(TypeError, match=r"^to: one device .*, got 'cpu' and 'cpu'$"):
            holder.to("cpu", device="cpu")
        with pytest.raises(TypeError, match=r"^to: dtype must be .*, got int64"):
            holder.to("cpu", np.int64)
    assert model.W.device == EMULATOR  # nothing was moved before the dtype was refused


@pytest.mark.parametrize("device", ["cpu", EMULATOR])
def test_casts_are_on_the_tape(device):
    x = fd.Tensor(numbers(7, 3), requires_grad=True, device=device)
    y = x.to("bfloat16")
    z = y.to(np.float32)
    assert (y.dtype, z.dtype, y.device, y.requires_grad) == (fd.bfloat16, np.float32, device, True)
    assert y.to(fd.bfloat16) is y
    (z * 3).sum().backward()
    assert x.grad.dtype == np.float32 and np.array_equal(values(x.grad), np.full((7, 3), 3))
    w = fd.tensor([0.1], dtype="bfloat16", device=device, requires_grad=True)
    w.to("float64").backward()
    assert w.grad.dtype == fd.bfloat16 and w.grad.item() == 1
    with pytest.raises(TypeError, match="dtype must be float32, float64 or bfloat16, got int64"):
        x.to(np.int64)
    with pytest.raises(TypeError, match="must be of a float dtype to be converted, got int64"):
        fd.Tensor(LABELS).to("float32")


def test_only_names_and_dtypes_are_targets():
    for target in (None, there(X), 4):
        kind = type(target).__name__
        for holder in (fd.tensor(X), fd.nn.Affine(3, 2)):
            with pytest.raises(TypeError, match=f"^to: target .* a float dtype, got {kind}"):
                holder.to(target)


@pytest.mark.parametrize("device", ["cpu", EMULATOR])
def test_gradients_add_up_in_what_was_cast(device):
    x = fd.tensor(X, device=device, requires_grad=True)
    y = x.to("bfloat16")
    (y.to("float32") * 3 + y.to("float32") * (1 + 2**-7)).sum().backward()
    assert same(values(x.grad), np.full(X.shape, 4, np.float32))  # 4 + 2^-7 is between two bf16
    leaf = fd.tensor(X, dtype="bfloat16", device=device, requires_grad=True)
    for _ in range(3):
        leaf.to("float32").sum().backward()
    assert same(values(leaf.grad), np.full(X.shape, 3, BF16))


def test_a_recorded_sum_of_gradients_is_replayed():
    def gradient(x):
        x.requires_grad = True
        y = x.to("bfloat16")
        (y.to("float32") + y.to("float32")).sum().backward()
        return x.grad

    step = fd.capture(gradient)
    for _ in range(3):
        assert np.array_equal(step(X).numpy(), np.full(X.shape, 2))


def test_a_recorded_cast_is_replayed():
    step = fd.capture(lambda x: x.to("bfloat16").to("float32"))
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal(9).astype(np.float32)
        assert np.array_equal(step(x), x.astype(BF16).astype(np.float32))


def test_gradients_of_bfloat16_add_up():
    x = there(X, requires_grad=True)
    both = [ops.cross_entropy(x, there(LABELS, "int64"), reduction="sum") for _ in range(2)]
    both[0].backward()
    once = values(x.grad).astype(np.float32)
    both[1].backward()
    assert same(values(x.grad), (once + once).astype(BF16))
    twice = there(X, requires_grad=True)
    y = ops.layer_norm(twice, 5)
    loss = ops.cross_entropy(y, there(LABELS, "int64")) + ops.cross_entropy(
        y, there(LABELS, "int64")
    )
    loss.backward()  # adds within the graph
    assert twice.grad.dtype == fd.bfloat16


def test_gradients_of_parts():
    x = there(X, requires_grad=True)
    y = ops.layer_norm(x[1::3, :4], 4)
    y.backward(there(numbers(*y.shape, seed=3)))
    wide = there(X, "float32", requires_grad=True)
    ops.layer_norm(wide[1::3, :4], 4).backward(there(numbers(*y.shape, seed=3), "float32"))
    assert same(values(x.grad), values(wide.grad).astype(BF16)) and values(x.grad)[1, 0] != 0


def test_the_cpu_says_where_bfloat16_is_stored():
    text = r"X must be float32\|float64\(B C\), got bfloat16\(8, 5\); .* on devices only.*float32"
    with pytest.raises(TypeError, match=text):
        ops.cross_entropy(fd.tensor(X, dtype="bfloat16"), LABELS)
    with pytest.raises(TypeError, match=r"must be float32\|float64.*by some operations"):
        ops.relu(there(X))
    with pytest.raises(TypeError, match=r"w must be float32\(C\) \(beside bfloat16 X\), got bf"):
        ops.cross_entropy(there(X), there(LABELS, "int64"), there(np.ones(5)))
    with pytest.raises(TypeError, match=r"theta must be float32\|float64\(P\), got bfloat16"):
        p = fd.nn.Parameter(fd.tensor(X, dtype="bfloat16"))
        p.grad = p.detach()
        fd.optim.SGD([p]).step()


def test_what_is_missing_without_ml_dtypes():
    code = """
        import sys
        sys.modules["ml_dtypes"] = None
        import fastdl as fd, numpy as np
        for use in (lambda: fd.bfloat16, lambda: fd.tensor([1.0], dtype="bfloat16"),
                    lambda: fd.Tensor(np.ones(3)).to("bfloat16")):
            try:
                use()
            except fd._extras.MissingExtraError as error:
                print(error)
    """
    said = python(code).stdout.splitlines()
    assert len(said) == 3 and len(set(said)) == 1
    assert said[0].startswith("bfloat16 needs ml_dtypes") and said[0].endswith('"fastdl[bf16]"')


def test_its_name_is_known_before_ml_dtypes_is_imported():
    code = f"""
        import fastdl as fd
        print(fd.cuda.pinned_empty(3, "bfloat16", device={EMULATOR!r}).dtype)
    """
    assert python(code).stdout == "bfloat16\n"


# ---- operations: those of float32, rounded -----------------------------------------------------

RNG = np.random.default_rng(1)
FUNCTIONS = {
    "cross_entropy": ((8, 5), lambda x, w: ops.cross_entropy(x, there(LABELS, "int64"), w(5))),
    "cross_entropy rows": (
        (3, 20_011),
        lambda x, w: ops.cross_entropy(
            x, there([5, -100, 20_010], "int64"), reduction="none", label_smoothing=0.1
        ),
    ),
    "cross_entropy soft": ((6, 37), lambda x, w: ops.cross_entropy(x, w(6, 37))),
    "layer_norm": ((9, 40), lambda x, w: ops.layer_norm(x, 40, w(40), w(40))),
    "layer_norm long": ((3, 2500), lambda x, w: ops.layer_norm(x, 2500, w(2500))),
    "batch_norm": ((33, 7), lambda x, w: ops.batch_norm(x, w(7), w(7), w(7), w(7), True)),
    "batch_norm images": (
        (3, 4, 17, 19),
        lambda x, w: ops.batch_norm(x, w(4), w(4), w(4), w(4), True, activation="relu"),
    ),
    "batch_norm evaluation": ((5, 4, 3), lambda x, w: ops.batch_norm(x, w(4), w(4), w(4), w(4))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_are_those_of_float32_rounded(name):
    shape, function = FUNCTIONS[name]
    dy, found = None, []
    for dtype in ("float32", "bfloat16"):
        made = []

        def weight(*shape, made=made):
            made.append(there(numbers(*shape, seed=len(made) + 1) ** 2, "float32"))
            made[-1].requires_grad = not name.startswith("cross") and len(made) > 2
            return made[-1]

        x = there(numbers(*shape), dtype, requires_grad=True)
        y = function(x, weight)
        if dy is None:  # other than 1 it would be another rounding of cross_entropy's gradient
            dy = np.ones(y.shape) if name.startswith("cross") else numbers(*y.shape, seed=9)
        y.backward(there(dy, str(y.dtype)))
        grads = [values(w.grad) for w in made if w.grad is not None]
        found.append((values(y), values(x.grad), [*grads, *map(values, made)]))
    (y, dx, rest), (y16, dx16, rest16) = found
    assert same(y16, y.astype(y16.dtype)) and same(dx16, dx.astype(BF16))
    assert (y16.dtype == BF16) == (not name.startswith("cross"))
    assert len(rest) == len(rest16) and all(map(same, rest, rest16))


# ---- models and optimizers ---------------------------------------------------------------------


def test_norms_of_a_bfloat16_model_stay_in_float32():
    model = fd.nn.Sequential(fd.nn.Affine(5, 5), fd.nn.BatchNorm1d(5), fd.nn.LayerNorm(5))
    model.to(EMULATOR).to("bfloat16")
    kinds = {name: a.dtype for name, a in model.state_dict().items()}
    assert {n for n, t in kinds.items() if t == BF16} == {"0.W", "0.b"}
    assert {str(t) for t in kinds.values()} == {"bfloat16", "float32", "int64"}
    y = model[2](model[1](there(X)))
    assert y.dtype == fd.bfloat16 and y.device == EMULATOR
    model.to(np.float64)
    assert {a.dtype.name for a in model.parameters()} == {"float64"}


def trained(optimizer, dtype, steps=5, **options):
    """Parameters after steps on the same gradients in either dtype."""
    params = [fd.nn.Parameter(there(numbers(*s, seed=1), dtype)) for s in ((8, 5), (33,), (0,))]
    o = optimizer(params, lr=0.01, **options)
    for i in range(steps):
        o.zero_grad()
        for p in params[: 2 if i % 2 else 1]:  # not all take every step
            p.grad = there(numbers(*p.shape, seed=i + 2), dtype)
        o.step()
    return params, o


@pytest.mark.parametrize(
    "optimizer, options, names",
    [
        (fd.optim.SGD, {}, set()),
        (fd.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}, {"momentum_buffer"}),
        (fd.optim.AdamW, {}, {"step", "exp_avg", "exp_avg_sq"}),
        (
            fd.optim.Adam,
            {"amsgrad": True, "clip_norm": 0.5, "ema_decay": 0.9},
            {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "ema"},
        ),
    ],
    ids=["SGD", "momentum", "AdamW", "amsgrad"],
)
def test_steps_are_taken_in_float32_weights(optimizer, options, names):
    wide, other = trained(optimizer, "float32", **options)
    params, o = trained(optimizer, "bfloat16", **options)
    state, want = o.state_dict()["state"], other.state_dict()["state"]
    for i, (p, q) in enumerate(zip(params[:2], wide[:2], strict=True)):
        assert set(state[i]) == names | {"master"}
        assert same(state[i]["master"], values(q))
        assert same(values(p), values(q).astype(BF16)) and not np.array_equal(values(p), values(q))
        assert all(same(np.asarray(state[i][n]), np.asarray(want[i][n])) for n in names)


def test_a_run_goes_on_from_its_state():
    params, o = trained(fd.optim.AdamW, "bfloat16")
    saved, weights = o.state_dict(), [values(p) for p in params]
    more, other = trained(fd.optim.AdamW, "bfloat16", steps=1)
    other.load_state_dict(saved)
    for p, w in zip(more, weights, strict=True):  # after the state of the optimizer, or before
        holder = fd.nn.Module()
        holder.p = p
        holder.load_state_dict({"p": w})
    for p, q in zip(params, more, strict=True):
        p.grad = q.grad = there(numbers(*p.shape, seed=77))
    o.step()
    other.step()
    for number, state in o.state_dict()["state"].items():
        for name, value in state.items():
            assert same(np.asarray(value), np.asarray(other.state_dict()["state"][number][name]))


def test_float32_weights_follow_what_is_loaded_into_the_parameters():
    model = fd.nn.Affine(5, 4).to(EMULATOR).to("bfloat16")
    o = fd.optim.SGD(model.parameters(), lr=2.0**-12)
    for p in model.parameters():
        p.grad = there(np.ones(p.shape))
    o.step()
    model.load_state_dict({"W": numbers(5, 4).astype(BF16), "b": model.state_dict()["b"]})
    kept = o.state_dict()["state"]
    assert same(kept[0]["master"], numbers(5, 4))
    assert not same(kept[1]["master"], values(model.b).astype(np.float32))  # still with its digits
    other = fd.nn.Affine(5, 4).to(EMULATOR).to("bfloat16")
    before, o2 = values(other.W), fd.optim.SGD(other.parameters())
    o2.load_state_dict(o.state_dict())  # without the parameters that it belongs to
    for p in other.parameters():
        p.grad = there(np.ones(p.shape))
    o2.step()
    assert np.abs(values(other.W).astype(float) - before.astype(float)).max() < 0.01


def test_optimizers_that_share_parameters_go_on_from_each_other():
    p = fd.nn.Parameter(there(np.zeros(4)))
    optimizers = [fd.optim.SGD([p], lr=1.0) for _ in range(2)]
    for steps in range(1, 7):
        p.grad = there(np.ones(4))
        optimizers[steps // 2 % 2].step()
        assert np.array_equal(values(p), np.full(4, -steps))
    assert all(np.array_equal(o.state_dict()["state"][0]["master"], [-6] * 4) for o in optimizers)


def test_float32_weights_follow_new_initial_values():
    p = fd.nn.Parameter(there(np.zeros((2, 3))))
    o = fd.optim.SGD([p], lr=1.0)
    for value in (0, 10, -3):
        assert fd.nn.init.constant_(p, value) is p
        p.grad = there(np.ones((2, 3)))
        o.step()
        assert np.array_equal(values(p), np.full((2, 3), value - 1))


def test_states_of_another_dtype_are_refused():
    _, o = trained(fd.optim.AdamW, "bfloat16")
    _, plain = trained(fd.optim.AdamW, "float32")
    with pytest.raises(ValueError, match="master of parameter 0 must be one of step, exp_avg"):
        plain.load_state_dict(o.state_dict())
    state = o.state_dict()
    state["state"][0]["exp_avg"] = state["state"][0]["exp_avg"].astype(BF16)
    with pytest.raises(TypeError, match=r"exp_avg .* must be float32\(8, 5\), got bfloat16\(8, 5"):
        o.load_state_dict(state)


def test_the_average_of_a_bfloat16_model():
    model = fd.nn.Affine(5, 4).to(EMULATOR).to("bfloat16")
    o = fd.optim.SGD(model.parameters(), lr=0.5, ema_decay=0.5)
    for _ in range(2):
        for p in model.parameters():
            p.grad = there(np.ones(p.shape))
        o.step()
    averaged = fd.optim.ema_model(model, o)
    assert averaged.W.dtype == fd.bfloat16
    assert same(values(averaged.W), o.state_dict()["state"][0]["ema"].astype(BF16))


# ---- files --------------------------------------------------------------------------------------


def test_a_bfloat16_model_in_a_file(tmp_path):
    model = fd.nn.Affine(5, 4).to("bfloat16")
    path = tmp_path / "model.safetensors"
    kept = {**model.state_dict(), "empty": np.zeros((0, 3), BF16), "one": np.array(1.5, BF16)}
    fd.save({"state": kept, "tensor": model.W}, path)
    loaded = fd.load(path)
    assert same(loaded["tensor"], values(model.W))
    assert all(same(loaded["state"][name], kept[name]) for name in kept)
    code = f"""
        import sys
        import fastdl as fd
        print(fd.load({str(path)!r})["tensor"].dtype)  # nothing before has made NumPy know it
        sys.modules["ml_dtypes"] = None
        try:
            fd.load({str(path)!r})
        except fd._extras.MissingExtraError as error:
            print(error)
    """
    said = python(code).stdout
    assert said.startswith("bfloat16\nbfloat16 needs ml_dtypes")
