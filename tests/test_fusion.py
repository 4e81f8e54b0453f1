"""Neighbours in a program become one call where no bit changes, and only there."""

import fastdl
import numpy as np
import pytest
from capture_steps import data
from fastdl import nn, ops
from fastdl._recording import rebuilt


def names(f):
    return [c["name"] for c in f.programs()[0].calls()]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_activations_ride_in_the_epilogue_of_affine(activation):
    layers = nn.Sequential(nn.Affine(4, 8), activation(), nn.Affine(8, 2))
    X, y = data()

    @fastdl.capture
    def gradients(X, y):
        layers.zero_grad()
        loss = ops.cross_entropy(layers(X), y)
        loss.backward()
        return [loss, *(p.grad for p in layers.parameters())]

    wanted = [t.numpy().copy() for t in gradients._fn(fastdl.Tensor(X), fastdl.Tensor(y))]
    for _ in range(3):
        got = gradients(X, y)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
    assert names(gradients)[:3] == ["affine_forward", "affine_forward", "cross_entropy_forward"]


def test_calls_are_not_fused_over_the_heads_of_others():
    """The hidden values are used twice, kept outside, or changed in between."""
    layer, kept = nn.Affine(4, 4), []
    X = data()[0]

    def twice(X):
        H = layer(X)
        return ops.relu(H), ops.relu(ops.relu(H))

    def keeps(X):
        kept.append(layer(X))
        return ops.relu(kept[-1])

    def returns(X):
        H = layer(X)
        return ops.relu(H), H

    for fn in (twice, keeps, returns):
        with fastdl.no_grad():
            wanted = rebuilt(fn(fastdl.Tensor(X)), lambda t: t.numpy())
            f = fastdl.capture(fn)
            for _ in range(3):
                got = rebuilt(f(X), lambda t: t.numpy())
                np.testing.assert_array_equal(got, wanted)
        assert names(f)[:2] == ["affine_forward", "relu_forward"]


def test_an_output_that_a_call_in_between_reads_is_not_written_early():
    X, W = (np.random.default_rng(i).normal(size=(3, 3)).astype("f") for i in range(2))
    shared, out = np.full((3, 3), 5, "f"), np.empty((3, 3), "f")

    def body(X):
        with fastdl.no_grad():
            H = ops.affine(X, fastdl.Tensor(W))
            ops.relu(fastdl.Tensor(shared), out=out)
            ops.relu(H, out=shared)

    f = fastdl.capture(body)
    for _ in range(3):
        shared[...] = 5
        f(X)
        assert (out == 5).all()
        assert (shared != 5).any()
    assert names(f) == ["affine_forward", "relu_forward", "relu_forward"]
