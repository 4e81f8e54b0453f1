"""clip_norm and ema_decay of the optimizers, against torch's formulas in float64."""

import copy
import math

import fastdl
import numpy as np
import pytest
from capture_steps import data, make
from fastdl import nn, optim

KINDS = [
    (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    (optim.AdamW, {"lr": 0.1, "amsgrad": True}),
]
each_kind = pytest.mark.parametrize(("kind", "options"), KINDS, ids=[k.__name__ for k, _ in KINDS])
SHAPES = [(3, 4), (4,), (), (5, 2), (0, 3), (1,)]


def tensors(seed=0, dtypes=(np.float64,)):
    rng = np.random.default_rng(seed)
    return [
        fastdl.Tensor(np.asarray(rng.normal(size=s), dtypes[i % len(dtypes)]), requires_grad=True)
        for i, s in enumerate(SHAPES)
    ]


def gradients(params, seed, scale):
    rng = np.random.default_rng(100 + seed)
    return [np.asarray(scale * rng.normal(size=p.shape), p.dtype) for p in params]


def clip(grads, c):
    """What torch.nn.utils.clip_grad_norm_ makes of the gradients."""
    norm = math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in grads))
    return [np.asarray(g * g.dtype.type(min(1.0, c / (norm + 1e-6)))) for g in grads]


@each_kind
def test_clipping_is_torchs_over_the_whole_group(kind, options):
    """Also where some parameters have no gradient: the step then works on several stretches."""
    a, b = tensors(), tensors()
    clipped = kind(a, clip_norm=2.0, **options)
    by_hand = kind(b, **options)
    for step in range(6):
        scale = (10.0, 0.01)[step % 2]  # above and below the norm
        grads = gradients(a, step, scale)
        has = [i for i in range(len(a)) if step != 2 or i not in (1, 4)]
        for i in has:
            a[i].grad = grads[i]
        for i, g in zip(has, clip([grads[i] for i in has], 2.0), strict=True):
            b[i].grad = g
        clipped.step()
        by_hand.step()
        for i in has:
            np.testing.assert_array_equal(a[i].grad.numpy(), grads[i])
        clipped.zero_grad()
        by_hand.zero_grad()
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-13)


def test_a_group_is_clipped_by_its_own_norm_even_over_two_dtypes():
    params = tensors(dtypes=(np.float64, np.float32))
    before = [p.numpy().copy() for p in params]
    groups = [{"params": params[:4], "clip_norm": 1.0}, {"params": params[4:], "clip_norm": 0.25}]
    opt = optim.SGD(groups, lr=1.0)
    grads = gradients(params, 0, 10.0)
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    opt.step()
    want = [*clip(grads[:4], 1.0), *clip(grads[4:], 0.25)]
    for p, old, g in zip(params, before, want, strict=True):
        tolerance = 4 * np.finfo(p.dtype).eps
        np.testing.assert_allclose(p.numpy(), old - g, rtol=tolerance, atol=tolerance)


def test_the_norm_of_many_gradients_is_accurate_and_threads_do_not_change_it():
    """A sum of ones in float32 would stop at 2^24."""
    size = 2**24 + 100_001
    p = nn.Parameter(np.zeros(size, np.float32))
    opt = optim.SGD([p], lr=1.0, clip_norm=1.0)
    p.grad = np.ones(size, np.float32)
    found = set()
    for threads in (1, 2, 3):
        fastdl.set_num_threads(threads)
        opt.step()
        found.add(opt.param_groups[0].squares.item())
    assert found == {float(size)}


@pytest.mark.parametrize(("bad", "left"), [(np.nan, [np.nan, np.nan]), (np.inf, [np.nan, 1.0])])
def test_a_norm_that_is_not_finite_does_as_in_torch(bad, left):
    p = nn.Parameter(np.ones(2))
    opt = optim.SGD([p], lr=1.0, clip_norm=1.0)
    p.grad = np.array([bad, 5.0])
    opt.step()
    np.testing.assert_array_equal(p.numpy(), left)


@each_kind
def test_the_average_follows_the_parameters(kind, options):
    params = tensors()
    opt = kind(params, ema_decay=0.9, **options)
    averages = [None] * len(params)
    for step in range(6):
        for i, (p, g) in enumerate(zip(params, gradients(params, step, 1.0), strict=True)):
            p.grad = None if step < 2 and i in (1, 4) else g
        opt.step()
        for i, p in enumerate(params):
            if p.grad is not None:
                old, now = averages[i], p.numpy().copy()
                averages[i] = now if old is None else 0.9 * old + 0.1 * now
    for p, want in zip(params, averages, strict=True):
        np.testing.assert_allclose(opt.averages()[id(p)], want, rtol=1e-13, atol=1e-15)


def test_the_average_of_a_constant_is_that_constant():
    """With d ema + (1 - d) theta it would drift away by 1e-4 of it: float32(d) is not d."""
    p = nn.Parameter(np.array([0.1, -3.7, 1e5], np.float32))
    opt = optim.SGD([p], lr=0.0, ema_decay=0.9999)
    for _ in range(1000):
        p.grad = np.ones(3, np.float32)
        opt.step()
    np.testing.assert_array_equal(opt.averages()[id(p)], p.numpy())


def test_ema_model_is_a_copy_with_averaged_weights():
    model, opt, step = make(ema_decay=0.5)
    with pytest.raises(ValueError, match="ema_model: optimizer must keep an average"):
        optim.ema_model(model, optim.SGD(nn.Affine(2, 2).parameters(), ema_decay=0.5))
    untouched = optim.ema_model(model, opt)
    for p, q in zip(model.parameters(), untouched.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    want = None
    for i in range(3):
        step(*map(fastdl.Tensor, data(seed=i)))
        now = [p.numpy().astype(np.float64) for p in model.parameters()]
        want = now if want is None else [(w + n) / 2 for w, n in zip(want, now, strict=True)]
    averaged = optim.ema_model(model, opt)
    assert averaged.training
    for p, w in zip(averaged.parameters(), want, strict=True):
        np.testing.assert_allclose(p.numpy(), w, rtol=1e-6, atol=1e-7)
        assert p.requires_grad
    for x, y in zip(model.buffers(), averaged.buffers(), strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.shares_memory(x, y)
    kept = [p.numpy().copy() for p in averaged.parameters()]
    step(*map(fastdl.Tensor, data(seed=9)))
    for p, value in zip(averaged.parameters(), kept, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
    assert averaged.predict(data()[0]).shape == (16, 2)


def train(wrap, steps=60, **options):
    """A run in which clipping, averaging and the learning rate change on the way."""
    model, opt, step = make(clip_norm=0.5, ema_decay=0.9, **options)
    step = wrap(step)
    changes = {10: ("clip_norm", 0.1), 20: ("clip_norm", 0), 30: ("clip_norm", 0.3),
               35: ("ema_decay", 0.5), 40: ("ema_decay", 0), 50: ("ema_decay", 0.99)}  # fmt: skip
    losses = []
    for i in range(steps):
        if i in changes:
            opt.param_groups[0][changes[i][0]] = changes[i][1]
        opt.param_groups[0]["lr"] = 1e-2 * 0.99**i
        losses.append(step(*map(fastdl.Tensor, data(seed=i))).item())
    return model, opt, losses, step


def assert_same_run(one, other):
    assert one[2] == other[2]
    for p, q in zip(one[0].parameters(), other[0].parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        mine, its = one[1].averages()[id(p)], other[1].averages()[id(q)]
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
def test_a_replay_is_the_plain_step_while_the_options_change(kind):
    assert_same_run(train(lambda f: f, kind=kind), train(fastdl.capture, kind=kind))


def test_threads_do_not_change_a_bit():
    runs = []
    for threads in (1, 2, 3):
        fastdl.set_num_threads(threads)
        runs.append(train(fastdl.capture, steps=20))
    assert_same_run(runs[0], runs[1])
    assert_same_run(runs[0], runs[2])


def test_a_new_norm_steers_a_recorded_step_and_switching_records_another():
    _, opt, step = make(clip_norm=1.0)
    captured = fastdl.capture(step)
    captured(*data())
    names = [c["name"] for c in captured.programs()[0].calls()]
    assert names[-2:] == ["sum_squares", "adam_step"]
    program = captured.programs()[0]
    opt.param_groups[0]["clip_norm"] = 2.0
    captured(*data())
    assert captured.programs() == [program]
    opt.param_groups[0]["clip_norm"] = None
    captured(*data())
    assert "sum_squares" not in [c["name"] for c in captured.programs()[0].calls()]
    opt.param_groups[0]["ema_decay"] = 0.9
    captured(*data())
    assert not any(np.isnan(a).any() for a in opt.averages().values())


@each_kind
def test_resuming_continues_bit_for_bit(kind, options):
    a = tensors(dtypes=(np.float32,))
    opt = kind(a, clip_norm=1.0, ema_decay=0.9, **options)
    take_steps(a, opt, range(3), skip={2})
    state = copy.deepcopy(opt.state_dict())
    assert 2 not in state["state"]
    assert "ema" in state["state"][0]
    b = [fastdl.Tensor(p.numpy().copy(), requires_grad=True) for p in a]
    again = kind(b, lr=5.0)
    again.load_state_dict(state)
    assert again.param_groups[0].options() == opt.param_groups[0].options()
    take_steps(a, opt, range(3, 6))
    take_steps(b, again, range(3, 6))
    for p, q in zip(a, b, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        np.testing.assert_array_equal(opt.averages()[id(p)], again.averages()[id(q)])


def take_steps(params, opt, steps, skip=()):
    for step in steps:
        for i, (p, g) in enumerate(zip(params, gradients(params, step, 1.0), strict=True)):
            p.grad = None if i in skip else g
        opt.step()


def test_a_state_from_before_these_options_loads():
    params = tensors()
    opt = optim.Adam(params)
    take_steps(params, opt, range(2))
    state = opt.state_dict()
    for name in ("clip_norm", "ema_decay"):
        del state["param_groups"][0][name]
    again = optim.Adam(tensors(), clip_norm=1.0, ema_decay=0.9)
    again.load_state_dict(state)
    assert again.param_groups[0]["clip_norm"] == 1.0
    assert all(np.isnan(a).all() for a in again.averages().values())  # not begun


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"clip_norm": -1.0}, ValueError, "clip_norm must be a number >= 0, got -1.0"),
        ({"clip_norm": math.nan}, ValueError, "clip_norm must be a number >= 0, got nan"),
        ({"clip_norm": "1"}, TypeError, "clip_norm must be a number, got '1'"),
        ({"ema_decay": 1.0}, ValueError, "ema_decay must be 0 <= d < 1, got 1.0"),
        ({"ema_decay": -0.5}, ValueError, "ema_decay must be a number >= 0, got -0.5"),
        ({"ema_decay": math.nan}, ValueError, "ema_decay must be a number >= 0, got nan"),
    ],
)
def test_bad_options_are_refused(kind, options, error, text):
    params = tensors()
    with pytest.raises(error, match=f"{kind.__name__}: {text}"):
        kind(params, lr=0.1, **options)
    opt = kind(params, lr=0.1)
    ((name, value),) = options.items()
    with pytest.raises(error, match=text):
        opt.param_groups[0][name] = value
    assert opt.param_groups[0][name] == 0


def test_none_and_zero_are_off():
    params = tensors()
    opt = optim.Adam(params, clip_norm=None, ema_decay=0)
    take_steps(params, opt, range(1))
    assert opt.averages() == {}
    assert list(opt.state_dict()["state"][0]) == ["step", "exp_avg", "exp_avg_sq"]
