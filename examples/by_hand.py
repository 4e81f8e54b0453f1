"""Layer by layer, as in the textbooks: forward, then backward by hand, without a tape.

Two affine layers learn XOR. The gradients are compared with the formulas

    dW = Xᵀ dY      db = Σ_i dY_i      dX = dY Wᵀ

Run it with: python examples/by_hand.py
"""

import sys

import fastdl
import numpy as np
from fastdl import nn, optim


def learn(steps):
    """Train on the four rows of XOR; return the loss and the answers."""
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    t = np.array([0, 1, 1, 0])
    first, act, second = nn.Affine(2, 16), nn.ReLU(), nn.Affine(16, 2)
    loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam([*first.parameters(), *second.parameters()], lr=0.03)
    for step in range(steps):
        optimizer.zero_grad()
        H = act(first(X))
        Y = second(H)
        value = float(loss(Y, t))

        dY = loss.backward()
        dH = second.backward(dY)
        first.backward(act.backward(dH))
        if step == 0:
            compare(second, H, dY, dH)
        optimizer.step()
    return value, Y.argmax(axis=1).tolist()


def compare(layer, X, dY, dX):
    """Check the gradients of an affine layer against the formulas above."""
    bound = {"rtol": 1e-5, "atol": 1e-7}
    np.testing.assert_allclose(layer.W.grad, X.T @ dY, **bound)
    np.testing.assert_allclose(layer.b.grad, dY.sum(axis=0), **bound)
    np.testing.assert_allclose(dX, dY @ layer.W.numpy().T, **bound)
    print("the gradients are those of the formulas")


fastdl.manual_seed(1)
value, answers = learn(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 300)
print(f"loss {value:.4f}; answers {answers}")
