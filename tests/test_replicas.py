"""Populations: each replica gives the bits it gives alone."""

import fastdl
import numpy as np
import pytest
from capture_steps import data
from fastdl import _core, nn, optim

K = 5


def make_model():
    return nn.MLP(4, 16, 2, norm="batch", dropout=0.3)


def make_step(model, lr):
    opt = optim.Adam(model.parameters(), lr=lr)
    loss_fn = nn.CrossEntropyLoss()

    def step(X, y):
        opt.zero_grad()
        loss = loss_fn(model(X), y)
        loss.backward()
        opt.step()
        return loss

    return step


def population(seeds=range(K)):
    models = nn.Ensemble(make_model, K, seeds=list(seeds))
    steps = [make_step(model, 1e-3 * (r + 1)) for r, model in enumerate(models)]
    return models, fastdl.capture(lambda r, X, y: steps[r](X, y), replicas=K)


def share_out(threads):
    """Use so many threads, even for so little work."""
    fastdl.set_num_threads(threads)
    _core.set_work_per_thread(1024)


def alone(r, batches):
    fastdl.manual_seed(r)
    model = make_model()
    step = make_step(model, 1e-3 * (r + 1))
    return model, [step(fastdl.Tensor(X), fastdl.Tensor(y)).item() for X, y in batches]


def assert_same_state(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_replica_gives_the_bits_it_gives_alone(threads):
    share_out(threads)
    models, step = population()
    batches = [[data(seed=10 * i + r) for r in range(K)] for i in range(30)]
    losses = []
    for batch in batches:
        X, y = (np.stack(a) for a in zip(*batch, strict=True))
        losses.append(step(X, y).numpy())
    assert losses[0].shape == (K,)
    for r in range(K):
        model, wanted = alone(r, [batch[r] for batch in batches])
        assert [step_losses[r] for step_losses in losses] == wanted
        assert_same_state(models[r], model)
    assert len(step.programs()) == K


@pytest.mark.parametrize("threads", [1, 2])
def test_run_is_the_run_of_each(threads):
    share_out(threads)
    X, y = data(53)
    models, step = population()
    options = {"batch_size": 8, "epochs": 3}
    losses = step.run(X, y, rng=[np.random.default_rng(r) for r in range(K)], **options)
    assert losses.shape == (K, 21)
    for r in range(K):
        fastdl.manual_seed(r)
        model = make_model()
        single = fastdl.capture(make_step(model, 1e-3 * (r + 1)))
        wanted = single.run(X, y, rng=np.random.default_rng(r), **options)
        np.testing.assert_array_equal(losses[r], wanted)
        assert_same_state(models[r], model)


def test_run_on_data_of_their_own():
    sets = [data(24, seed=r) for r in range(K)]
    X, y = (np.stack(a) for a in zip(*sets, strict=True))
    _, step = population()
    losses = step.run(X, y, batch_size=8, shuffle=False, epochs=2, own_data=True)
    for r in range(K):
        wanted = alone(r, [(sets[r][0][i : i + 8], sets[r][1][i : i + 8]) for i in (0, 8, 16)] * 2)
        assert losses[r].tolist() == wanted[1]


def test_one_array_for_all():
    _, step = population()
    X, y = data()
    shared = np.broadcast_to(X, (K, *X.shape)), np.broadcast_to(y, (K, *y.shape))
    first = [step(*shared).numpy() for _ in range(3)]
    _, other = population()
    copies = [other(*(np.ascontiguousarray(a) for a in shared)).numpy() for _ in range(3)]
    np.testing.assert_array_equal(first, copies)


def test_forms_of_results_and_modes():
    models, _ = population()
    f = fastdl.capture(lambda r, X: {"Y": models[r](X), "r": 7}, replicas=K)
    X = np.stack([data(seed=r)[0] for r in range(K)])
    models.eval()
    for _ in range(3):
        got = f(X)
        assert got["r"] == 7
        for r in range(K):
            np.testing.assert_array_equal(got["Y"].numpy()[r], models[r](X[r]))
    models.train()
    f(X)
    assert len(f.programs()) == 2 * K
    assert "5 replicas" in repr(f) and "affine_forward" in str(f)


def test_ensemble_predicts_with_all_models():
    models, _ = population()
    X, _ = data()
    got = models.predict(X)
    assert got.shape == (K, 16, 2)
    for r, Y in enumerate(models.eval()(X)):
        np.testing.assert_array_equal(got[r], Y)
    before = fastdl.random.default_generator.get_state()
    nn.Ensemble(make_model, 2, seeds=[1, 2])
    np.testing.assert_array_equal(fastdl.random.default_generator.get_state(), before)
    fastdl.manual_seed(0)
    a = nn.Ensemble(make_model, 2)
    fastdl.manual_seed(0)
    assert_same_state(a, nn.Ensemble(make_model, 2))
    assert not np.array_equal(a[0].predict(X), a[1].predict(X))


def test_shared_state_is_refused():
    model = make_model()
    steps = [make_step(model, 1e-3)] * 2
    f = fastdl.capture(lambda r, X, y: steps[r](X, y), replicas=2)
    X, y = (np.stack([a, a]) for a in data())
    f(X, y)
    with pytest.raises(ValueError, match=r"replicas must not share what they write.*nn\.Ensemble"):
        f(X, y)
    models = [nn.Dropout(0.5), nn.Dropout(0.5)]
    g = fastdl.capture(lambda r, X: models[r](X), replicas=2)
    g(X)
    with pytest.raises(ValueError, match=r"dropout_forward at .*test_replicas.py"):
        g(X)


def test_a_bad_label_of_one_replica_changes_nothing():
    models, step = population()
    X, y = (np.stack([a] * K) for a in data())
    step(X, y)
    step(X, y)
    before = models.state_dict()
    y[3, 2] = 9
    with pytest.raises(ValueError, match="got 9 at row 2"):
        step(X, y)
    for name, value in models.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_unaligned_and_strided_arrays():
    models, step = population()
    X, y = (np.stack([a] * K) for a in data())
    odd = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    odd[...] = X
    twin, other = population()
    for _ in range(3):
        a = step(odd, y[:, ::-1]).numpy()
        b = other(X, np.ascontiguousarray(y[:, ::-1])).numpy()
        np.testing.assert_array_equal(a, b)
    assert_same_state(models, twin)


def test_inside_a_captured_function_they_are_refused():
    _, step = population()
    X, y = (np.stack([a] * K) for a in data())
    outer = fastdl.capture(lambda X, y: step(X, y))
    for _ in range(3):
        with pytest.raises(fastdl.CaptureError, match="calls captured replicas"):
            outer(X, y)
        step(X, y)


def test_bad_arguments():
    X, y = data()
    with pytest.raises(ValueError, match="replicas must be an integer >= 1, got 0"):
        fastdl.capture(lambda r, X: X, replicas=0)
    _, step = population()
    with pytest.raises(ValueError, match=r"argument 0 must be an array of 5 replicas.*broadcast"):
        step(X, y)
    with pytest.raises(ValueError, match="rng must be one generator or 5, got 2"):
        step.run(X, y, batch_size=4, rng=[np.random.default_rng()] * 2)
    with pytest.raises(ValueError, match="k must be an integer >= 1"):
        nn.Ensemble(make_model, 0)
    with pytest.raises(ValueError, match="seeds must be 3, got 1"):
        nn.Ensemble(make_model, 3, seeds=[1])
    with pytest.raises(TypeError, match="every entry must be a Module, got int"):
        nn.Ensemble(lambda: 3, 2)
