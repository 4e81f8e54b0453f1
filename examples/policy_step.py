"""A small policy network whose whole training step is one native call.

The network of CartPole (4 observations, 2 actions) learns a rule from labelled states. The step is
recorded at its first call and replayed from then on: the same bits as the eager step, without
Python between its kernels. Run it with: python examples/policy_step.py
"""

import sys
import time

import fastdl
import numpy as np
from fastdl import nn, optim

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
rng = np.random.default_rng(0)
states = rng.normal(size=(4096, 4)).astype(np.float32)
actions = (states @ np.array([0.1, 0.4, 1.0, 0.7], np.float32) > 0).astype(np.int64)


def learn(captured):
    """Return the trained model and the time of one step in microseconds."""
    fastdl.manual_seed(0)
    model, loss = nn.MLP([4, 64, 64, 2]), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step(X, t):
        optimizer.zero_grad()
        value = loss(model(X), t)
        value.backward()
        optimizer.step()
        return value

    run = fastdl.capture(step) if captured else lambda X, t: step(fastdl.Tensor(X), t)
    start = time.perf_counter()
    for i in range(steps):
        rows = slice(i * 64 % 4096, i * 64 % 4096 + 64)
        run(states[rows], actions[rows])
    return model.eval(), (time.perf_counter() - start) / steps * 1e6


(eager, eager_us), (model, us) = learn(captured=False), learn(captured=True)
same = all(
    np.array_equal(a, b)
    for a, b in zip(eager.state_dict().values(), model.state_dict().values(), strict=True)
)
accuracy = (model(states).argmax(axis=1) == actions).mean()
print(f"accuracy {accuracy:.3f}; eager {eager_us:.0f} us, captured {us:.0f} us per step")
print("the captured steps are the eager ones, bit for bit" if same else "THE BITS DIFFER")
sys.exit(not same)
