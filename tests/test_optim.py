"""Optimizers against torch's formulas in float64, and everything around the step."""

import copy
import math

import fastdl
import numpy as np
import pytest
from fastdl import nn, optim

SHAPES = [(3, 4), (4,), (), (5, 2), (0, 3), (1,)]


class ReferenceSGD:
    def __init__(
        self, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False
    ):
        self.__dict__.update(locals())
        self.state = {}

    def update(self, i, p, g):
        g = (-g if self.maximize else g) + self.weight_decay * p
        if self.momentum:
            if i not in self.state:
                self.state[i] = g
            else:
                self.state[i] = self.momentum * self.state[i] + (1 - self.dampening) * g
            g = g + self.momentum * self.state[i] if self.nesterov else self.state[i]
        return p - self.lr * g


class ReferenceAdam:
    def __init__(
        self, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, maximize=False,
        decoupled=False,
    ):  # fmt: skip
        self.__dict__.update(locals())
        self.state = {}

    def update(self, i, p, g):
        b1, b2 = self.betas
        t, m, v, vmax = self.state.get(i, (0, 0 * p, 0 * p, 0 * p))
        g = -g if self.maximize else g
        if self.decoupled:
            p = p - self.lr * self.weight_decay * p
        else:
            g = g + self.weight_decay * p
        t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        vmax = np.maximum(vmax, v)
        self.state[i] = t, m, v, vmax
        denominator = np.sqrt((vmax if self.amsgrad else v) / (1 - b2**t)) + self.eps
        return p - self.lr / (1 - b1**t) * m / denominator


def reference_adamw(weight_decay=1e-2, **options):
    return ReferenceAdam(weight_decay=weight_decay, decoupled=True, **options)


CASES = [
    (optim.SGD, ReferenceSGD, {}),
    (optim.SGD, ReferenceSGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, ReferenceSGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, ReferenceSGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (optim.SGD, ReferenceSGD, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    (optim.Adam, ReferenceAdam, {}),
    (optim.Adam, ReferenceAdam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    (optim.Adam, ReferenceAdam, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    (optim.Adam, ReferenceAdam, {"lr": 0.1, "amsgrad": True}),
    (
        optim.AdamW,
        lambda **k: ReferenceAdam(**{"weight_decay": 1e-2, "decoupled": True} | k),
        {"lr": 0.1},
    ),
    (
        optim.AdamW,
        reference_adamw,
        {"lr": 0.1, "weight_decay": 0.2, "amsgrad": True},
    ),
]
IDS = [f"{case[0].__name__}-{'-'.join(case[2]) or 'defaults'}" for case in CASES]


def params(seed=0, dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [
        fastdl.Tensor(np.asarray(rng.normal(size=s), dtype), requires_grad=True) for s in shapes
    ]


def set_grads(tensors, seed, skip=(), scale=1.0):
    rng = np.random.default_rng(seed)
    grads = [np.asarray(scale * rng.normal(size=p.shape), p.dtype) for p in tensors]
    for i, (p, g) in enumerate(zip(tensors, grads, strict=True)):
        p.grad = None if i in skip else g
    return grads


@pytest.mark.parametrize(("kind", "reference", "options"), CASES, ids=IDS)
def test_steps_are_torchs(kind, reference, options):
    ps = params()
    values = [p.numpy().copy() for p in ps]
    opt, ref = kind(ps, **options), reference(**options)
    for step in range(8):
        skip = {1, 3} if step in (0, 3) else {0, 5} if step == 5 else ()
        grads = set_grads(ps, step, skip)
        opt.step()
        opt.zero_grad()
        for i, g in enumerate(grads):
            if i not in skip:
                values[i] = ref.update(i, values[i], g)
    for p, value in zip(ps, values, strict=True):
        np.testing.assert_allclose(p.numpy(), value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "reference", "options"), CASES, ids=IDS)
def test_resuming_from_a_state_dict_continues_bit_for_bit(kind, reference, options):
    a = params(dtype=np.float32)
    opt = kind(a, **options)
    for step in range(3):
        set_grads(a, step, skip={2})
        opt.step()
    state = copy.deepcopy(opt.state_dict())
    b = [fastdl.Tensor(p.numpy().copy(), requires_grad=True) for p in a]
    again = kind(b, lr=5.0)
    set_grads(b, 99)  # what it did before loading must not matter
    again.step()
    for p, q in zip(a, b, strict=True):
        q.numpy()[...] = p.numpy()
    if options.get("amsgrad") or options.get("momentum"):
        assert again.param_groups[0].options() != opt.param_groups[0].options()
    again.load_state_dict(state)
    assert again.param_groups[0].options() == opt.param_groups[0].options()
    for step in range(3, 6):
        for ps, o in ((a, opt), (b, again)):
            set_grads(ps, step)
            o.step()
    for p, q in zip(a, b, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_state_dict_has_torchs_layout():
    ps = params(shapes=[(2, 3), (3,)])
    opt = optim.Adam([{"params": [ps[0]]}, {"params": [ps[1]], "lr": 0.5}], amsgrad=True)
    assert opt.state_dict()["state"] == {}
    set_grads(ps, 0, skip={0})
    opt.step()
    state = opt.state_dict()
    assert list(state["state"]) == [1]
    assert list(state["state"][1]) == ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    assert state["state"][1]["step"] == 1
    assert state["state"][1]["exp_avg"].shape == (3,)
    assert [g["params"] for g in state["param_groups"]] == [[0], [1]]
    assert state["param_groups"][1] == {
        "lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "maximize": False,
        "clip_norm": 0.0, "ema_decay": 0.0, "amsgrad": True, "params": [1],
    }  # fmt: skip
    sgd = optim.SGD(ps, momentum=0.9)
    sgd.step()
    assert list(sgd.state_dict()["state"][1]) == ["momentum_buffer"]
    kept = state["state"][1]["exp_avg"].copy()
    opt.step()
    np.testing.assert_array_equal(state["state"][1]["exp_avg"], kept)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda s: s["param_groups"][0].update(params=[0]), ValueError, r"must hold \[2\] param"),
        (lambda s: s["param_groups"][0].update(lr=-1), ValueError, "lr must be a number >= 0"),
        (lambda s: s["state"].update({7: {}}), ValueError, "must be of parameters 0 to 1"),
        (
            lambda s: s["state"][0].update(exp_avg=np.zeros(2)),
            ValueError,
            r"exp_avg of parameter 0 must be float64\(2, 3\), got float64\(2\)",
        ),
        (
            lambda s: s["state"][0].update(exp_avg=np.zeros((2, 3), "f4")),
            TypeError,
            r"got float32\(2, 3\)",
        ),
        (lambda s: s["state"][0].update(bogus=np.zeros(2)), ValueError, "must be one of step"),
        (lambda s: s["state"][0].update(step=-1), ValueError, "step of parameter 0"),
    ],
    ids=["group size", "option", "number", "shape", "dtype", "name", "step"],
)
def test_a_bad_state_dict_changes_nothing(change, error, text):
    ps = params(shapes=[(2, 3), (3,)])
    opt = optim.Adam(ps)
    set_grads(ps, 0)
    opt.step()
    before = copy.deepcopy(opt.state_dict())
    bad = copy.deepcopy(before)
    bad["param_groups"][0]["eps"] = 0.5
    bad["state"][1]["step"] = 9
    change(bad)
    with pytest.raises(error, match=text):
        opt.load_state_dict(bad)
    after = opt.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, entry in before["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(after["state"][i][name], value)


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        (optim.SGD, {"lr": -1}, ValueError, "SGD: lr must be a number >= 0, got -1"),
        (optim.SGD, {"lr": math.nan}, ValueError, "lr must be a number >= 0, got nan"),
        (optim.SGD, {"lr": "1"}, TypeError, "lr must be a number, got '1'"),
        (optim.SGD, {"momentum": -0.1}, ValueError, "momentum must be"),
        (optim.SGD, {"nesterov": True}, ValueError, "nesterov must go with a momentum"),
        (
            optim.SGD,
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            ValueError,
            "nesterov must go with",
        ),
        (optim.Adam, {"betas": (1.0, 0.9)}, ValueError, "Adam: betas must be 0 <= beta < 1"),
        (optim.Adam, {"betas": 0.9}, TypeError, "betas must be two numbers"),
        (optim.AdamW, {"eps": -1e-8}, ValueError, "AdamW: eps must be"),
        (optim.AdamW, {"weight_decay": -1}, ValueError, "weight_decay must be"),
        (optim.Adam, {"amsgrad": 1}, TypeError, "amsgrad must be True or False"),
        (optim.Adam, {"momentum": 0.9}, TypeError, "momentum"),
    ],
)
def test_bad_options_change_nothing(kind, options, error, text):
    ps = params()
    arrays = [p.numpy() for p in ps]
    with pytest.raises(error, match=text):
        kind(ps, **options)
    if error is ValueError:
        with pytest.raises(error, match=text):
            kind([{"params": ps, **options}])
    assert all(p.numpy() is a for p, a in zip(ps, arrays, strict=True))


def test_bad_parameters():
    p = fastdl.Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ValueError, match="at least one tensor"):
        optim.SGD([])
    with pytest.raises(ValueError, match="got one twice"):
        optim.SGD([p, p])
    with pytest.raises(TypeError, match=r"use model\.parameters\(\)"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="must be tensors, got ndarray"):
        optim.SGD([np.ones(2)])
    with pytest.raises(ValueError, match="must be leaf tensors of a float dtype"):
        optim.SGD([fastdl.Tensor(np.arange(2))])
    with pytest.raises(ValueError, match="must be leaf tensors"):
        optim.SGD([fastdl.ops.relu(p)])
    assert p._home is None


def test_groups_steer_the_step():
    ps = params(shapes=[(2,), (2,)])
    before = [p.numpy().copy() for p in ps]
    opt = optim.SGD([{"params": ps[0]}, {"params": [ps[1]], "lr": 0.5}], lr=0.25)
    grads = set_grads(ps, 0)
    opt.param_groups[0]["lr"] = 2.0
    assert opt.param_groups[0]["lr"] == 2.0
    opt.step()
    np.testing.assert_allclose(ps[0].numpy(), before[0] - 2.0 * grads[0], rtol=1e-15)
    np.testing.assert_allclose(ps[1].numpy(), before[1] - 0.5 * grads[1], rtol=1e-15)
    opt.param_groups[0]["initial_lr"] = 0.1
    assert opt.param_groups[0]["initial_lr"] == 0.1
    assert dict(opt.param_groups[0])["params"] == [ps[0]]
    with pytest.raises(ValueError, match="lr must be"):
        opt.param_groups[0]["lr"] = -1
    assert opt.param_groups[0]["lr"] == 2.0
    with pytest.raises(ValueError, match="params must stay"):
        opt.param_groups[0]["params"] = []
    with pytest.raises(KeyError):
        opt.param_groups[0]["learning_rate"]


def test_momentum_and_amsgrad_can_be_switched_on_later():
    for kind, option, value in ((optim.SGD, "momentum", 0.9), (optim.Adam, "amsgrad", True)):
        ps = params(shapes=[(3,)])
        theta = ps[0].numpy().copy()
        options = {"lr": 0.1} | ({"dampening": 0.3} if kind is optim.SGD else {})
        reference = (ReferenceSGD if kind is optim.SGD else ReferenceAdam)(**options)
        opt = kind(ps, **options)
        for step in range(6):
            if step == 2:
                opt.param_groups[0][option] = value
                setattr(reference, option, value)
                if option == "amsgrad":  # torch starts the maximum at zero when it is switched on
                    t, m, v, _ = reference.state[0]
                    reference.state[0] = t, m, v, np.zeros(3)
            (g,) = set_grads(ps, step, scale=0.1**step)
            opt.step()
            theta = reference.update(0, theta, g)
        np.testing.assert_allclose(ps[0].numpy(), theta, rtol=1e-12)


def test_add_param_group_and_sharing_between_optimizers():
    ps = params(shapes=[(2, 2), (3,), (4,)])
    first = optim.SGD(ps[:2], lr=1.0)
    first.add_param_group({"params": [ps[2]], "lr": 3.0})
    with pytest.raises(ValueError, match="got one twice"):
        first.add_param_group({"params": [ps[0]]})
    assert len(first.param_groups) == 2
    # A second optimizer over some of the same parameters steps the same memory.
    second = optim.SGD([ps[2], ps[0]], lr=10.0)
    values = [p.numpy().copy() for p in ps]
    grads = set_grads(ps, 0)
    first.step()
    second.step()
    for p, v, g, lr in zip(ps, values, grads, (11.0, 1.0, 13.0), strict=True):
        np.testing.assert_allclose(p.numpy(), v - lr * g, rtol=1e-12)


def test_parameters_move_into_one_arena_and_keep_their_values():
    layer = nn.MLP(4, 8, 2)
    values = [p.numpy().copy() for p in layer.parameters()]
    kept = next(layer.parameters())
    kept.grad = np.ones(kept.shape, "f4")
    opt = optim.Adam(layer.parameters())
    np.testing.assert_array_equal(kept.grad.numpy(), 1)
    assert np.shares_memory(kept.grad.numpy(), opt._runs[0].grad)
    assert len(opt._runs) == 1
    for p, value in zip(layer.parameters(), values, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
        assert p.numpy().ctypes.data % 64 == 0
        assert np.shares_memory(p.numpy(), opt._runs[0].theta)
    kept.grad = np.full(kept.shape, 2, "f4")
    assert np.shares_memory(kept.grad.numpy(), opt._runs[0].grad)


def test_the_arrays_of_a_large_arena_begin_at_different_places_of_a_page():
    (p,) = params(shapes=[(1 << 20,)])
    p.grad = np.ones(p.shape, p.dtype)
    opt = optim.Adam([p], ema_decay=0.9)
    opt.step()
    run = opt._runs[0]
    arrays = [run.theta, run.grad, *run.state.values()]
    assert len(arrays) == 5
    assert len({a.ctypes.data % 4096 // 512 for a in arrays}) == len(arrays)


def test_mixed_dtypes_get_an_arena_each():
    a = fastdl.Tensor(np.ones(3, "f4"), requires_grad=True)
    b = fastdl.Tensor(np.ones(3), requires_grad=True)
    opt = optim.SGD([a, b], lr=1.0)
    a.grad, b.grad = np.ones(3, "f4"), np.ones(3)
    opt.step()
    np.testing.assert_array_equal(a.numpy(), 0)
    np.testing.assert_array_equal(b.numpy(), 0)


def test_zero_grad_and_closure():
    ps = params(shapes=[(3,)])
    opt = optim.SGD(ps, lr=1.0)
    assert opt.step(lambda: ps[0].backward(np.ones(3)) or 42) == 42
    opt.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(ps[0].grad.numpy(), 0)
    opt.zero_grad()
    assert ps[0].grad is None
    value = ps[0].numpy().copy()
    opt.step()
    np.testing.assert_array_equal(ps[0].numpy(), value)


def test_gradients_after_zero_grad_are_stored_not_added():
    layer = nn.Affine(3, 2)
    opt = optim.SGD(layer.parameters(), lr=0.0)
    X = fastdl.tensor(np.ones((4, 3), "f4"))
    for _ in range(3):
        opt.zero_grad()
        layer(X).backward(np.ones((4, 2), "f4"))
        np.testing.assert_array_equal(layer.W.grad.numpy(), 4)
    layer(X).backward(np.ones((4, 2), "f4"))
    np.testing.assert_array_equal(layer.W.grad.numpy(), 8)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda p: optim.Adam([p]), "exp_avg"),
        (lambda p: optim.SGD([p], lr=0.1, momentum=0.9), "momentum_buffer"),
    ],
    ids=["Adam", "SGD"],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_moments_without_gradient_end_at_zero_not_as_subnormals(make, name, sign):
    """0.9 times the smallest subnormal number is itself: arithmetic would stay slow for ever."""
    p = nn.Parameter(np.ones(40, np.float32))
    optimizer = make(p)
    for step in range(1000):
        p.grad = np.full(40, sign if step == 0 else 0, np.float32)
        optimizer.step()
    assert not optimizer.state_dict()["state"][0][name].any()
