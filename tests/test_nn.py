"""Modules: attributes, modes, state dicts, layers by hand, layers against formulas."""

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops, optim


def f4(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Net(nn.Module):
    def __init__(self):
        self.first = nn.Affine(3, 4)
        self.shared = self.first
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.blocks = nn.ModuleList([nn.Affine(4, 4), nn.BatchNorm1d(4)])
        self.register_buffer("seen", np.zeros(1, np.float32))
        self.register_buffer("nothing", None)

    def forward(self, X):
        for block in (self.first, *self.blocks):
            X = block(X)
        return X


def test_attributes_are_found_once_and_in_order():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "scale",
        "first.W",
        "first.b",
        "blocks.0.W",
        "blocks.0.b",
        "blocks.1.weight",
        "blocks.1.bias",
    ]
    assert [n for n, _ in net.named_modules()] == ["", "first", "blocks", "blocks.0", "blocks.1"]
    assert [n for n, _ in net.named_buffers()] == [
        "seen",
        "blocks.1.running_mean",
        "blocks.1.running_var",
        "blocks.1.num_batches_tracked",
    ]
    assert [type(m).__name__ for m in net.children()] == ["Affine", "Affine", "ModuleList"]


def test_state_dict_round_trip_and_copies():
    a, b = Net(), Net()
    state = a.state_dict()
    assert list(state)[:2] == ["scale", "seen"]
    assert {"first.W", "shared.W", "blocks.1.num_batches_tracked"} < set(state)
    assert b.load_state_dict(state) == ([], [])
    for name, value in b.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
        assert not np.shares_memory(value, a.state_dict()[name])
    a.scale.numpy()[:] = 5
    assert state["scale"][0] == 1


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda s: s.pop("first.b"), ValueError, r"missing \['first.b'\]"),
        (lambda s: s.update(extra=s["scale"]), ValueError, r"unexpected \['extra'\]"),
        (
            lambda s: s.update(scale=np.ones(3, "f4")),
            ValueError,
            r"scale must be float32\(2\), got float32\(3\)",
        ),
        (lambda s: s.update(scale=np.ones(2)), TypeError, r"got float64\(2\); convert"),
    ],
    ids=["missing", "unexpected", "shape", "dtype"],
)
def test_load_state_dict_changes_everything_or_nothing(change, error, text):
    net = Net()
    before = net.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    change(state)
    with pytest.raises(error, match=text):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_load_state_dict_not_strict_reports():
    net = Net()
    state = {"scale": np.full(2, 9, "f4"), "other": np.ones(1)}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert unexpected == ["other"]
    assert "first.W" in missing
    assert net.scale.numpy()[0] == 9


def test_torch_state_dicts_fail_with_the_remedy():
    state = {"weight": f4(2, 3), "bias": f4(2)}
    with pytest.raises(ValueError, match=r"W = weight\.T and b = bias"):
        nn.Affine(3, 2).load_state_dict(state)


def test_load_state_dict_keeps_the_optimizers_memory():
    layer = nn.Affine(3, 2)
    opt = optim.SGD(layer.parameters(), lr=1.0)
    layer.load_state_dict({"W": np.zeros((3, 2), "f4"), "b": np.zeros(2, "f4")})
    layer.W.grad = np.ones((3, 2), "f4")
    opt.step()
    np.testing.assert_array_equal(layer.W.numpy(), -1)


def test_train_and_eval_reach_all_modules():
    net = Net()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())


def test_zero_grad_apply_requires_grad_and_to():
    net = Net()
    net(fastdl.tensor(f4(5, 3))).backward(f4(5, 4))
    assert net.first.W.grad is not None
    net.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(net.first.W.grad.numpy(), 0)
    net.zero_grad()
    assert net.first.W.grad is None
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Net", "Affine", "ModuleList", "Affine", "BatchNorm1d"]
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.to(np.float64)
    assert {p.dtype for p in net.parameters()} == {np.dtype("f8")}
    assert net.blocks[1].running_mean.dtype == np.float64
    assert net.blocks[1].num_batches_tracked.dtype == np.int64
    with pytest.raises(TypeError, match="must be float32, float64 or bfloat16, got int32"):
        net.to(np.int32)
    with pytest.raises(ValueError, match="device: must be 'cpu' or 'cuda', got 'gpu'"):
        net.to("gpu")
    for name, dtype in (("f4", np.float32), ("float64", np.float64), ("cpu", np.float64)):
        assert {p.dtype for p in net.to(name).parameters()} == {np.dtype(dtype)}


def test_an_optimizer_notices_moved_parameters():
    layer = nn.Affine(3, 2)
    opt = optim.SGD(layer.parameters())
    opt.step()
    layer.to(np.float64)
    with pytest.raises(RuntimeError, match="make the optimizer anew"):
        opt.step()


def test_summary_and_repr():
    model = nn.MLP(4, [64, 32], 2, norm="batch", dropout=0.1)
    text = model.summary()
    assert "W(64,32)" in text
    assert text.splitlines()[-1].split() == [
        "total",
        f"{sum(p.size for p in model.parameters()):,}",
    ]
    assert "(1): BatchNorm1d(64, eps=1e-05, momentum=0.1, activation='relu')" in repr(model)


def test_arrays_in_arrays_out_by_hand_as_in_the_textbooks():
    layer = nn.Affine(3, 2)
    X, dY = f4(5, 3), f4(5, 2, seed=1)
    Y = layer(X)
    assert isinstance(Y, np.ndarray)
    dX = layer.backward(dY)
    W = layer.W.numpy()
    np.testing.assert_array_equal(Y, ops.affine(X, W, layer.b.numpy()))
    for a, b in zip(
        (dX, layer.W.grad.numpy(), layer.b.grad.numpy()),
        ops.affine_backward(dY, X, W),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(RuntimeError, match="called with an ndarray in training mode"):
        layer.backward(dY)


def test_a_whole_network_by_hand():
    model, loss = nn.MLP(3, 8, 2, dropout=0.5), nn.CrossEntropyLoss()
    X, t = f4(6, 3), np.array([0, 1, 1, 0, 1, 0])
    fastdl.manual_seed(1)
    L = loss(model(X), t)
    dX = model.backward(loss.backward())
    by_hand = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    fastdl.manual_seed(1)
    x = fastdl.Tensor(X, requires_grad=True)
    taped = loss(model(x), t)
    taped.backward()
    assert float(L) == float(taped)
    np.testing.assert_array_equal(dX, x.grad.numpy())
    for p, g in zip(model.parameters(), by_hand, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), g)


def test_backward_by_hand_checks_and_can_be_repeated_after_an_error():
    layer = nn.Affine(3, 2)
    layer(f4(5, 3))
    with pytest.raises(ValueError, match=r"gradient must be float32\(5, 2\)"):
        layer.backward(f4(4, 2))
    assert layer.W.grad is None
    assert layer.backward(f4(5, 2)).shape == (5, 3)


@pytest.mark.parametrize("inference", ["eval", "no_grad"])
def test_inference_keeps_nothing(inference):
    layer = nn.Affine(3, 2)
    if inference == "eval":
        Y = layer.eval()(f4(5, 3))
    else:
        with fastdl.no_grad():
            Y = layer(f4(5, 3))
    assert isinstance(Y, np.ndarray)
    with pytest.raises(RuntimeError, match="got no such call"):
        layer.backward(Y)


def test_an_array_inside_forward_stays_on_the_tape():
    class Constant(nn.Module):
        def __init__(self):
            self.layer = nn.Affine(3, 2)

        def forward(self, X):
            return self.layer(f4(5, 3))

    net = Constant()
    y = net(fastdl.tensor(f4(1)))
    y.backward(f4(5, 2))
    assert net.layer.W.grad is not None


def test_predict_is_eval_mode_in_any_batches_and_restores_modes():
    model = nn.MLP(4, 16, 3, norm="batch", dropout=0.5)
    model[1].eval()
    X = f4(50, 4)
    whole = model.predict(X)
    assert [m.training for m in model.modules()].count(False) == 1
    for size in (1, 7, 50, 1000):
        np.testing.assert_array_equal(model.predict(X, batch_size=size), whole)
    np.testing.assert_array_equal(model.eval()(X), whole)
    assert model.predict(X[:0]).shape == (0, 3)


def test_mlp_forms_are_the_same():
    for model in (nn.MLP(4, 8, 2), nn.MLP([4, 8, 2]), nn.MLP(4, [8], 2), nn.MLP(4, (8,), 2)):
        assert [p.shape for p in model.parameters()] == [(4, 8), (8,), (8, 2), (2,)]
    kinds = [type(m).__name__ for m in nn.MLP(4, 8, 2, norm="batch", dropout=0.5)]
    assert kinds == ["Affine", "BatchNorm1d", "Dropout", "Affine"]
    kinds = [type(m).__name__ for m in nn.MLP(4, 8, 2, norm="batch", activation="tanh")]
    assert kinds == ["Affine", "BatchNorm1d", "Tanh", "Affine"]
    with pytest.raises(ValueError, match="sizes must be"):
        nn.MLP(4)
    with pytest.raises(ValueError, match="activation must be"):
        nn.MLP(4, 2, activation="tan")
    with pytest.raises(ValueError, match="norm must be"):
        nn.MLP(4, 2, norm="layer")


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mlp_computes_the_formula(activation):
    model = nn.MLP(4, 8, 2, activation=activation, dtype=np.float64)
    act = np.tanh if activation == "tanh" else lambda z: np.maximum(z, 0)
    W1, b1, W2, b2 = (p.numpy() for p in model.parameters())
    X = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(model(X), act(X @ W1 + b1) @ W2 + b2, rtol=1e-13, atol=1e-14)


def test_batch_norm_layer_follows_torch():
    layer = nn.BatchNorm1d(3, momentum=0.3, dtype=np.float64)
    mean, var = np.zeros(3), np.ones(3)
    for i in range(3):
        X = np.random.default_rng(i).normal(size=(10, 3)) * 2 + 1
        Y = layer(X)
        expected = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5)
        np.testing.assert_allclose(Y, expected, rtol=1e-12, atol=1e-13)
        mean = 0.7 * mean + 0.3 * X.mean(0)
        var = 0.7 * var + 0.3 * X.var(0, ddof=1)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-13)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-13)
    assert layer.num_batches_tracked == 3
    Y = layer.eval()(X)
    np.testing.assert_allclose(Y, (X - mean) / np.sqrt(var + 1e-5), rtol=1e-12, atol=1e-13)
    assert layer.num_batches_tracked == 3


def test_batch_norm_with_cumulative_average_and_without_statistics():
    layer = nn.BatchNorm1d(2, momentum=None, dtype=np.float64)
    Xs = [np.random.default_rng(i).normal(size=(6, 2)) for i in range(4)]
    for X in Xs:
        layer(X)
    np.testing.assert_allclose(layer.running_mean, np.mean([X.mean(0) for X in Xs], 0), rtol=1e-12)
    bare = nn.BatchNorm1d(2, affine=False, track_running_stats=False, dtype=np.float64).eval()
    assert bare.state_dict() == {}
    np.testing.assert_allclose(bare(Xs[0]).mean(0), 0, atol=1e-15)


def test_dropout_layer_scales_and_is_identity_in_eval():
    X = np.ones((100, 100), np.float32)
    layer = nn.Dropout(0.25)
    Y = layer(X)
    assert set(np.unique(Y)) == {0, np.float32(1 / 0.75)}
    assert abs((Y == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / X.size)
    np.testing.assert_array_equal(layer.eval()(X), X)
    np.testing.assert_array_equal(nn.Dropout(1.0)(X), 0)
    np.testing.assert_array_equal(nn.Dropout(0.0)(X), X)
    with pytest.raises(ValueError, match="p must be 0 <= p <= 1"):
        nn.Dropout(-0.1)


def test_flatten():
    assert nn.Flatten()(np.zeros((2, 3, 4, 5))).shape == (2, 60)
    assert nn.Flatten(0, 1)(np.zeros((2, 3, 4))).shape == (6, 4)
    assert nn.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)
    with pytest.raises(ValueError, match="start_dim must not be after end_dim"):
        nn.Flatten(2, 1)(np.zeros((2, 3, 4)))


def test_losses():
    X, t = f4(6, 3).astype(float), np.array([0, 1, 2, -100, 1, 0])
    w = np.array([1.0, 2.0, 0.5])
    loss = nn.CrossEntropyLoss(weight=w, label_smoothing=0.1)
    logp = X - np.log(np.exp(X).sum(1, keepdims=True))
    keep = t != -100
    picked = w[t[keep]] * logp[keep, t[keep]]
    rows = -(0.9 * picked + 0.1 / 3 * (logp * w).sum(1)[keep])
    np.testing.assert_allclose(loss(X, t), rows.sum() / w[t[keep]].sum(), rtol=1e-12)
    assert list(loss.state_dict()) == ["weight"]
    T = np.zeros((6, 3))
    np.testing.assert_allclose(nn.MSELoss()(X, T), (X**2).mean(), rtol=1e-13)
    np.testing.assert_allclose(nn.MSELoss("none")(X, T), X**2, rtol=1e-15)
    for kind in (nn.CrossEntropyLoss, nn.MSELoss):
        with pytest.raises(ValueError, match="reduction must be one of"):
            kind(reduction="avg")
    with pytest.raises(ValueError, match="label_smoothing must be"):
        nn.CrossEntropyLoss(label_smoothing=2)


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="cross_entropy"):
        nn.CrossEntropyLoss()(f4(2, 3), np.array([0, 3]))


def test_bad_layers():
    with pytest.raises(TypeError, match=r"in_features must be an int, got 3\.0"):
        nn.Affine(3.0, 2)
    with pytest.raises(ValueError, match="out_features must be >= 0, got -2"):
        nn.Affine(3, -2)
    with pytest.raises(ValueError, match="activation must be None, 'relu', 'tanh', got"):
        nn.Affine(3, 2, activation="gelu")
    with pytest.raises(TypeError, match="every entry must be a Module, got function"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with pytest.raises(NotImplementedError, match="forward must be defined"):
        nn.Module()(f4(1))


def test_linear_is_affine():
    assert nn.Linear is nn.Affine


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(37, 5), (16, 3, 40), (4, 3, 700)])
def test_batch_norm_with_relu_in_one_pass_has_the_bits_of_two(shape, training):
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=shape).astype("f4"), rng.normal(size=shape).astype("f4")
    weight, bias = rng.normal(size=(2, shape[1])).astype("f4")
    results = []
    for activation in ("relu", None):
        layer = nn.BatchNorm1d(shape[1], activation=activation)
        layer.weight.numpy()[...], layer.bias.numpy()[...] = weight, bias
        layer.training = training
        x = fastdl.Tensor(X, requires_grad=True)
        Y = layer(x) if activation else ops.relu(layer(x))
        Y.backward(dY)
        results.append([t.numpy() for t in (Y, x.grad, layer.weight.grad, layer.bias.grad)])
    for fused, apart in zip(*results, strict=True):
        np.testing.assert_array_equal(fused, apart)
    with pytest.raises(ValueError, match="BatchNorm1d: activation must be None or 'relu'"):
        nn.BatchNorm1d(3, activation="tanh")


@pytest.mark.parametrize("dtype", [int, np.float16, "bfloat16"], ids=["int", "float16", "bfloat16"])
def test_layers_start_in_float32_or_float64(dtype):
    for layer, size in (
        (fastdl.nn.Affine, (3, 2)),
        (fastdl.nn.BatchNorm1d, (3,)),
        (fastdl.nn.LayerNorm, (3,)),
    ):
        with pytest.raises(TypeError, match=r"^dtype must be .* got \w+\d; .to\('bfloat16'\)"):
            layer(*size, dtype=dtype)
