"""Whole training steps: forward, cross entropy, backward, Adam; and predicting one observation.

The batch is handed over as NumPy arrays, as a user has it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.workload import Array, Call, Case

TRAFFIC = "adam"
LR, BETA1, BETA2, EPS, DROP = 1e-3, 0.9, 0.999, 1e-8, 0.1


def _case(name: str, B: int, *layers: int, quick: bool = False, **options: Any) -> Case:
    sizes = {"B": B, "layers": layers, "norm": False, "predict": False, **options}
    weights = sum(n * m for n, m in pairwise(layers))
    return Case(name, sizes, quick, weights < 1e6, (20 * weights + 16 * B * sum(layers)) / 1e6)


CASES = [
    _case("4-64-64-2 b64", 64, 4, 64, 64, 2, quick=True),
    _case("17-256-256-6 b256", 256, 17, 256, 256, 6, quick=True),
    _case("784-512-256-10 b128 bn dropout", 128, 784, 512, 256, 10, norm=True),
    _case("784-2048-2048-10 b512", 512, 784, 2048, 2048, 10),
    _case("predict 4-64-64-2 b1", 1, 4, 64, 64, 2, quick=True, predict=True),
]


def contradicted(X: Array, t: Array, classes: int) -> tuple[Array, Array]:
    """Give every second row the input of the one before and another label.

    A batch that is trained on again and again is learned by heart otherwise; gradients become
    subnormal numbers, on which CPUs are several times as slow.
    """
    X[..., 1::2, :] = X[..., 0::2, :]
    t[..., 1::2] = (t[..., 0::2] + 1) % classes
    return X, t


def _batch(case: Case) -> tuple[Array, Array]:
    rng, layers = case.rng(), case["layers"]
    X, t = case.normal(rng, case["B"], layers[0]), rng.integers(0, layers[-1], case["B"])
    return (X, t) if case["predict"] else contradicted(X, t, layers[-1])


def _start(case: Case) -> list[tuple[Array, Array]]:
    """Weights (n, m) and biases."""
    rng, found = np.random.default_rng(1), []
    for n, m in pairwise(case["layers"]):
        W = rng.uniform(-1, 1, (n, m)) / np.sqrt(n)
        found.append((W.astype(case.dtype), np.zeros(m, case.dtype)))
    return found


# ---- fastdl -------------------------------------------------------------------------------------


def _fastdl_model(case: Case, precision: str | None = None) -> Any:
    import fastdl as fd

    norm, dropout = ("batch", DROP) if case["norm"] else (None, 0.0)
    return fd.nn.MLP(*case["layers"], norm=norm, dropout=dropout, precision=precision)


def _fastdl_step(case: Case, precision: str | None = None) -> Any:
    import fastdl as fd

    model = _fastdl_model(case, precision).train()
    optimizer = fd.optim.Adam(model.parameters(), LR, (BETA1, BETA2), EPS)
    loss_fn = fd.nn.CrossEntropyLoss()

    def step(X: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(X), t)
        loss.backward()
        optimizer.step()
        return loss

    return step


def fastdl(case: Case) -> Call:
    """The captured step; to predict, `model.predict`."""
    import fastdl as fd

    X, t = _batch(case)
    if case["predict"]:
        model = _fastdl_model(case).eval()
        compiled = fd.compile(model)
        compiled(X)
        return Call(lambda: model.predict(X), programs=lambda: [compiled.program()])
    step = fd.capture(_fastdl_step(case))
    return Call(lambda: step(X, t), programs=lambda: step.programs()[-1:])


def fastdl_bf16(case: Case) -> Call | None:
    """The captured step with products in bf16, where products are what takes the time."""
    import fastdl as fd

    if case["predict"] or max(case["layers"]) < 256:
        return None
    X, t = _batch(case)
    step = fd.capture(_fastdl_step(case, "bf16"))
    return Call(lambda: step(X, t), programs=lambda: step.programs()[-1:])


def fastdl_eager(case: Case) -> Call | None:
    """The same step on the tape."""
    import fastdl as fd

    if case["predict"]:
        return None
    X, t = _batch(case)
    step = _fastdl_step(case)
    return Call(lambda: step(fd.tensor(X), fd.tensor(t)))


# ---- NumPy --------------------------------------------------------------------------------------


def numpy(case: Case) -> Call | None:
    """By hand, parameters and their state in flat arrays that Adam updates in place."""
    if case["norm"]:
        return None
    X, t = _batch(case)
    start, rows = _start(case), np.arange(case["B"])
    flat = np.concatenate([a.ravel() for pair in start for a in pair])
    grad, m1, m2, scratch = (np.zeros_like(flat) for _ in range(4))
    params, grads = _views(flat, start), _views(grad, start)
    last, count = len(params) - 1, [0]

    def forward(X: Array) -> list[Array]:
        kept = [X]
        for i, (W, b) in enumerate(params):
            Z = kept[-1] @ W
            Z += b
            kept.append(np.maximum(Z, 0, out=Z) if i < last else Z)
        return kept

    def backward(kept: list[Array]) -> None:
        P = kept.pop()
        P -= P.max(axis=1, keepdims=True)
        np.exp(P, out=P)
        P /= P.sum(axis=1, keepdims=True)
        P[rows, t] -= 1
        dZ = P
        dZ /= len(t)
        for i in range(last, -1, -1):
            Y = kept.pop()
            np.matmul(Y.T, dZ, out=grads[i][0])
            np.sum(dZ, axis=0, out=grads[i][1])
            if i:
                dZ = dZ @ params[i][0].T
                dZ *= Y > 0

    def adam() -> None:
        count[0] += 1
        np.multiply(grad, 1 - BETA1, out=scratch)
        np.multiply(m1, BETA1, out=m1)
        np.add(m1, scratch, out=m1)
        np.multiply(grad, grad, out=scratch)
        np.multiply(scratch, 1 - BETA2, out=scratch)
        np.multiply(m2, BETA2, out=m2)
        np.add(m2, scratch, out=m2)
        np.sqrt(m2, out=scratch)
        np.multiply(scratch, (1 - BETA2 ** count[0]) ** -0.5, out=scratch)
        np.add(scratch, EPS, out=scratch)
        np.divide(m1, scratch, out=scratch)
        np.multiply(scratch, LR / (1 - BETA1 ** count[0]), out=scratch)
        np.subtract(flat, scratch, out=flat)

    def step() -> None:
        backward(forward(X))
        adam()

    return Call((lambda: forward(X)[-1]) if case["predict"] else step)


def _views(flat: Array, like: list[tuple[Array, Array]]) -> list[tuple[Array, ...]]:
    found, at = [], 0
    for pair in like:
        views = []
        for a in pair:
            views.append(flat[at : at + a.size].reshape(a.shape))
            at += a.size
        found.append(tuple(views))
    return found


# ---- torch --------------------------------------------------------------------------------------


def _torch_model(case: Case) -> Any:
    from torch import nn

    layers: list[Any] = []
    for n, m in pairwise(case["layers"]):
        layers.append(nn.Linear(n, m))
        if case["norm"]:
            layers.append(nn.BatchNorm1d(m))
        layers.append(nn.ReLU())
        if case["norm"]:
            layers.append(nn.Dropout(DROP))
    return nn.Sequential(*layers[: -3 if case["norm"] else -1])


def _torch_call(case: Case, compiled: bool) -> Call:
    import torch
    from torch.nn import functional

    X, t = _batch(case)
    torch.manual_seed(1)
    model = _torch_model(case)
    if case["predict"]:
        model.eval()
        apply = torch.compile(model) if compiled else model
        with_grad_off = torch.inference_mode()
        return Call(with_grad_off(lambda: apply(torch.from_numpy(X))))
    optimizer = torch.optim.Adam(model.parameters(), LR, (BETA1, BETA2), EPS, fused=True)

    def loss_of(X: Any, t: Any) -> Any:
        return functional.cross_entropy(model(X), t)

    loss_fn = torch.compile(loss_of) if compiled else loss_of

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(torch.from_numpy(X), torch.from_numpy(t))
        loss.backward()
        optimizer.step()
        return loss

    return Call(step)


def torch(case: Case) -> Call:
    return _torch_call(case, compiled=False)


def torch_compile(case: Case) -> Call:
    return _torch_call(case, compiled=True)


# ---- jax ----------------------------------------------------------------------------------------


def _jax_forward(case: Case) -> Any:
    import jax
    import jax.numpy as jnp

    def forward(params: Any, X: Any, key: Any) -> Any:
        for i, (W, b, gamma, beta) in enumerate(params):
            X = X @ W + b
            if i == len(params) - 1:
                return X
            if case["norm"]:
                X = (X - X.mean(0)) * (gamma * jax.lax.rsqrt(X.var(0) + 1e-5)) + beta
            X = jax.nn.relu(X)
            if case["norm"]:
                kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - DROP, X.shape)
                X = jnp.where(kept, X / (1 - DROP), 0)
        return X

    return forward


def jax(case: Case) -> Call:
    """One jitted step; parameters and state are donated.  Running statistics are left out."""
    import jax
    import jax.numpy as jnp
    import optax

    X, t = _batch(case)
    forward = _jax_forward(case)
    pairs = [(jnp.asarray(W), jnp.asarray(b)) for W, b in _start(case)]
    params = [(W, b, jnp.ones_like(b), jnp.zeros_like(b)) for W, b in pairs]
    if case["predict"]:
        predict = jax.jit(forward)
        key = jax.random.key(0)
        return Call(lambda: predict(params, X, key), jax.block_until_ready)
    optimizer = optax.adam(LR, BETA1, BETA2, EPS)

    def loss_of(params: Any, X: Any, t: Any, key: Any) -> Any:
        rows = optax.softmax_cross_entropy_with_integer_labels
        return rows(forward(params, X, key), t).mean()

    def update(params: Any, state: Any, key: Any, X: Any, t: Any) -> Any:
        key, own = jax.random.split(key)
        loss, grads = jax.value_and_grad(loss_of)(params, X, t, own)
        changes, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, changes), state, key, loss

    step = jax.jit(update, donate_argnums=(0, 1, 2))
    held = [params, optimizer.init(params), jax.random.key(0)]

    def run() -> Any:
        *held[:], loss = step(*held, X, t)
        return held, loss

    return Call(run, jax.block_until_ready)


# ---- scikit-learn -------------------------------------------------------------------------------


def sklearn(case: Case) -> Call | None:
    """``partial_fit`` with Adam; it has neither batch norm nor dropout."""
    from sklearn.neural_network import MLPClassifier

    if case["norm"]:
        return None
    X, t = _batch(case)
    layers = case["layers"]
    model = MLPClassifier(
        layers[1:-1], solver="adam", alpha=0, batch_size=case["B"], learning_rate_init=LR
    )
    model.partial_fit(X, t, classes=np.arange(layers[-1]))
    if case["predict"]:
        return Call(lambda: model.predict_proba(X))
    return Call(lambda: model.partial_fit(X, t))


CONTENDERS = {
    "fastdl": fastdl,
    "fastdl/bf16": fastdl_bf16,
    "fastdl/eager": fastdl_eager,
    "numpy": numpy,
    "torch": torch,
    "torch_compile": torch_compile,
    "jax": jax,
    "sklearn": sklearn,
}
