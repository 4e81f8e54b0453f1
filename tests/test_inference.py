"""compile and predict: the bits of the plain model, from any thread, and never out of date."""

import copy
import pickle
import threading
from itertools import pairwise

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops, optim


def model(*sizes, **options):
    fastdl.manual_seed(0)
    return nn.MLP(*(sizes or (4, 32, 3)), **options)


def rows(n=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)


@pytest.mark.parametrize("training", [True, False])
def test_the_bits_of_the_model_in_eval_mode(training):
    m = model(norm="batch", dropout=0.5).train(training)
    compiled = fastdl.compile(m)
    twin = copy.deepcopy(m).eval()
    for n in (5, 1, 0, 300, 5):
        for seed in range(3):
            X = rows(n, seed)
            np.testing.assert_array_equal(compiled(X), twin(X))
            np.testing.assert_array_equal(m.predict(X), twin(X))
    assert all(x.training == training for x in m.modules())
    assert "4 recorded" in repr(compiled) and "affine_forward" in str(compiled)


def test_training_is_seen():
    m = model()
    compiled = fastdl.compile(m)
    X = rows()
    before = compiled(X), m.predict(X)
    opt = optim.SGD(m.parameters(), lr=0.5)
    nn.CrossEntropyLoss()(m(fastdl.Tensor(X)), np.zeros(5, int)).backward()
    opt.step()
    wanted = copy.deepcopy(m).eval()(X)
    for now, old in zip((compiled(X), m.predict(X)), before, strict=True):
        np.testing.assert_array_equal(now, wanted)
        assert (now != old).any()


class Scaled(nn.Module):
    def __init__(self):
        self.layer = model()
        self.width = 4

    def forward(self, X):
        return self.layer(ops.reshape(X, (-1, self.width)))


def test_what_replaces_a_part_of_the_model_is_seen():
    m = nn.Sequential(nn.Affine(4, 3), nn.ReLU())
    compiled = fastdl.compile(m)
    captured = fastdl.capture(lambda X: m(X))
    m.eval()
    X = rows()

    def check():
        for _ in range(2):
            wanted = m(X)
            np.testing.assert_array_equal(compiled(X), wanted)
            np.testing.assert_array_equal(m.predict(X), wanted)
            np.testing.assert_array_equal(captured(X).numpy(), wanted)
        return wanted

    seen = [check()]
    m[0].W = nn.Parameter(np.ones((4, 3), np.float32))
    seen.append(check())
    m[0].b = None
    seen.append(check())
    setattr(m, "1", nn.Flatten())
    seen.append(check())
    del m[0].b
    m[0].b = nn.Parameter(np.full(3, 2, np.float32))
    seen.append(check())
    assert all((a != b).any() for a, b in pairwise(seen))


def test_plain_attributes_of_a_module_may_change():
    m = Scaled().eval()
    compiled = fastdl.compile(m)
    X = rows(6)
    np.testing.assert_array_equal(compiled(X), m(X))
    m.layer = model(3, 5, 2).eval()
    m.width = 3
    X = X.reshape(-1, 3).copy()
    np.testing.assert_array_equal(compiled(X), m(X))


def test_predict_never_records_the_users_own_forward():
    calls = []

    class Mine(nn.Module):
        def forward(self, X):
            calls.append(1)
            return X

    m = Mine()
    for _ in range(4):
        m.predict(rows())
    assert len(calls) == 4
    own = model().eval()
    own.predict(rows())
    setattr(own, "0", nn.Sequential(nn.Affine(4, 32), Mine()))
    for _ in range(3):
        own.predict(rows())
    assert len(calls) == 7


def test_several_threads_at_once():
    m = model(4, 64, 64, 3).eval()
    compiled = fastdl.compile(m)
    inputs = [rows(40, seed) for seed in range(4)]
    wanted = [m(X) for X in inputs]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(500) if (compiled(inputs[i]) != wanted[i]).any())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_threads_with_shapes_of_their_own_leave_the_mode_alone():
    m = model(4, 64, 64, 3, dropout=0.5).train()
    compiled = fastdl.compile(m)
    wanted = {n: copy.deepcopy(m).eval()(rows(n)) for n in range(1, 7)}
    wrong = []

    def work(n):
        for i in range(60):
            size = (n + i) % 6 + 1
            wrong.extend([size] * int((compiled(rows(size)) != wanted[size]).any()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert all(x.training for x in m.modules())


def test_inside_a_captured_function_it_is_recorded():
    m = model(dropout=0.5).train()
    compiled = fastdl.compile(m)
    f = fastdl.capture(lambda X: compiled(X) * 2)
    for seed in range(3):
        X = rows(seed=seed)
        np.testing.assert_array_equal(f(X).numpy(), copy.deepcopy(m).eval()(X) * 2)
    assert m.training
    g = fastdl.capture(lambda X: compiled(X).numpy())
    with pytest.raises(fastdl.CaptureError, match="reads a value"):
        g(rows())


def test_other_results_and_inputs():
    class Two(nn.Module):
        def forward(self, X, Z):
            return {"sum": ops.relu(X), "pair": (Z, 3)}

    compiled = fastdl.compile(Two())
    X, Z = rows(3), rows(2)
    for _ in range(3):
        got = compiled(X, Z)
        np.testing.assert_array_equal(got["sum"], np.maximum(X, 0))
        np.testing.assert_array_equal(got["pair"][0], Z)
        assert got["pair"][1] == 3
    np.testing.assert_array_equal(compiled(fastdl.Tensor(X), Z[::-1])["pair"][0], Z[::-1])


def test_copies_of_a_model_compile_anew():
    m = model()
    X = rows()
    wanted = m.predict(X)
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert twin._compiled is None
        np.testing.assert_array_equal(twin.predict(X), wanted)
    with pytest.raises(TypeError, match="must not be copied"):
        copy.copy(fastdl.compile(m))


def test_errors():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got int"):
        fastdl.compile(3)
    compiled = fastdl.compile(model())
    for _ in range(2):
        with pytest.raises(ValueError, match="affine"):
            compiled(np.ones((2, 5), np.float32))
        with pytest.raises(TypeError, match="affine"):
            compiled(np.ones((2, 4)))
        compiled(rows())
    m = model().train()
    with pytest.raises(ValueError, match="affine"):
        m.predict(np.ones((2, 5), np.float32))
    assert m.training
