"""A population: k small nets of one shape, each on a batch of its own, one step of Adam each.

The time is that of one step of all.  The peers vectorise over the models: torch.func.vmap over
stacked parameters with the fused Adam of the stack, jax.vmap over the whole jitted step.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.train_step import BETA1, BETA2, EPS, LR, _start, contradicted
from benchmarks.workload import Array, Call, Case

TRAFFIC = "adam"


def _case(k: int, B: int, *layers: int, quick: bool = False) -> Case:
    name = f"{k} x {'-'.join(map(str, layers))} b{B}"
    return Case(name, {"k": k, "B": B, "layers": layers, "norm": False}, quick, megabytes=50)


CASES = [
    _case(64, 64, 4, 64, 64, 2, quick=True),
    _case(8, 64, 4, 64, 64, 2),
    _case(16, 256, 17, 256, 256, 6),
]


def _batches(case: Case) -> tuple[Array, Array]:
    rng, k, B, layers = case.rng(), case["k"], case["B"], case["layers"]
    X, t = case.normal(rng, k, B, layers[0]), rng.integers(0, layers[-1], (k, B))
    return contradicted(X, t, layers[-1])


def _fastdl_replicas(case: Case) -> Any:
    import fastdl as fd

    models = fd.nn.Ensemble(lambda: fd.nn.MLP(*case["layers"]), case["k"], range(case["k"]))
    optimizers = [fd.optim.Adam(m.parameters(), LR, (BETA1, BETA2), EPS) for m in models]
    loss_fn = fd.nn.CrossEntropyLoss()

    def step(r: int, X: Any, t: Any) -> Any:
        optimizers[r].zero_grad()
        loss = loss_fn(models[r](X), t)
        loss.backward()
        optimizers[r].step()
        return loss

    return fd.capture(step, replicas=case["k"])


def fastdl(case: Case) -> Call:
    """One captured step of all replicas."""
    X, t = _batches(case)
    step = _fastdl_replicas(case)
    return Call(lambda: step(X, t), programs=step.programs)


def fastdl_run(case: Case) -> Call:
    """Ten steps in one native call, a tenth of which is counted: rows are gathered, too."""
    X, t = _batches(case)
    step = _fastdl_replicas(case)
    X10, t10 = np.concatenate([X] * 10, axis=1), np.concatenate([t] * 10, axis=1)
    size = case["B"]

    def run() -> Any:
        return step.run(X10, t10, batch_size=size, steps=10, own_data=True)

    run()
    return Call(run, programs=lambda: step.programs() * 10)


def torch(case: Case) -> Call:
    import copy

    import torch
    from torch import nn
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap
    from torch.nn import functional

    X, t = map(torch.from_numpy, _batches(case))
    n = case["layers"]
    layers: list[Any] = [nn.Linear(n[0], n[1])]
    for a, b in pairwise(n[1:]):
        layers += [nn.ReLU(), nn.Linear(a, b)]
    models = [nn.Sequential(*copy.deepcopy(layers)) for _ in range(case["k"])]
    params, _ = stack_module_state(models)
    optimizer = torch.optim.Adam(params.values(), LR, (BETA1, BETA2), EPS, fused=True)
    skeleton = copy.deepcopy(models[0]).to("meta")

    def loss_of(p: Any, X: Any, t: Any) -> Any:
        return functional.cross_entropy(functional_call(skeleton, p, (X,)), t)

    gradients = vmap(grad_and_value(loss_of))

    def step() -> Any:
        grads, losses = gradients(params, X, t)
        for name, p in params.items():
            p.grad = grads[name]
        optimizer.step()
        return losses

    return Call(step)


def jax(case: Case) -> Call:
    """The jitted step of train_step, mapped over the models; state is donated."""
    import jax
    import jax.numpy as jnp
    import optax

    X, t = _batches(case)
    k = case["k"]
    params = [
        (jnp.stack([jnp.asarray(W)] * k), jnp.stack([jnp.asarray(b)] * k)) for W, b in _start(case)
    ]
    optimizer = optax.adam(LR, BETA1, BETA2, EPS)

    def loss_of(params: Any, X: Any, t: Any) -> Any:
        for i, (W, b) in enumerate(params):
            X = X @ W + b
            if i < len(params) - 1:
                X = jax.nn.relu(X)
        return optax.softmax_cross_entropy_with_integer_labels(X, t).mean()

    def update(params: Any, state: Any, X: Any, t: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, X, t)
        changes, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, changes), state, loss

    step = jax.jit(jax.vmap(update), donate_argnums=(0, 1))
    held = [params, jax.vmap(optimizer.init)(params)]

    def run() -> Any:
        *held[:], loss = step(*held, X, t)
        return held, loss

    return Call(run, jax.block_until_ready)


CONTENDERS = {"fastdl": fastdl, "fastdl/run10": fastdl_run, "torch": torch, "jax": jax}
