"""DQN (Mnih et al., 2015) on CartPole: one native call per update of the network.

The captured update holds everything: the target network's forward pass, the Huber loss, the
backward pass, Adam, and the slow copy of the weights into the target network.

    pip install fastdl gymnasium
    python examples/rl/dqn.py [SEED [STEPS]]
"""

import sys

import fastdl as fd
import numpy as np
from cartpole import Training, report
from fastdl import nn, ops, optim

GAMMA, TAU, LR, BATCH = 0.99, 0.01, 1e-3, 128
CAPACITY, WARM_UP, EVERY, UPDATES = 50_000, 1_000, 4, 2
EXPLORE_STEPS, LEAST_EXPLORATION = 8_000, 0.02


class DQN:
    """Deep Q-learning with a soft target network."""

    def __init__(self, seed):
        fd.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.online, self.target = nn.MLP(4, 128, 128, 2), nn.MLP(4, 128, 128, 2)
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = optim.Adam(self.online.parameters(), lr=LR)
        self.loss = nn.SmoothL1Loss()
        self.update = fd.capture(self._update)

    def act(self, observation, greedy=False, epsilon=0.0):
        if not greedy and self.rng.random() < epsilon:
            return int(self.rng.integers(2))
        return int(self.online.predict(observation[None]).argmax())

    def _update(self, obs, action, reward, next_obs, done):
        with fd.no_grad():
            best = ops.amax(self.target(next_obs), dim=1)
            goal = reward + best * (1 - done) * GAMMA
        chosen = ops.gather(self.online(obs), 1, action)
        loss = self.loss(chosen, goal)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with fd.no_grad():
            pairs = zip(self.target.parameters(), self.online.parameters(), strict=True)
            for slow, fast in pairs:
                ops.add(slow * (1 - TAU), fast * TAU, out=slow)
        return loss


def train(agent, seed, max_steps=100_000):
    """Return the log of a training run."""
    buffer = fd.data.ReplayBuffer(
        CAPACITY,
        {
            "obs": (4, np.float32), "action": np.int64, "reward": np.float32,
            "next_obs": (4, np.float32), "done": np.float32,
        },
    )  # fmt: skip
    batch, rng = None, fd.Generator(seed)
    training = Training(agent, seed, max_steps)
    while True:
        steps = training.log.steps
        epsilon = max(LEAST_EXPLORATION, 1 - steps / EXPLORE_STEPS)
        obs = training.observation
        action = agent.act(obs, epsilon=epsilon)
        following, reward, terminated, ended = training.step(action)
        buffer.add(obs, action, reward, following, float(terminated))
        if steps >= WARM_UP and steps % EVERY == 0:
            for _ in range(UPDATES):
                batch = buffer.sample(BATCH, rng=rng, out=batch)
                agent.update(*batch.values())
        if (ended or steps + 1 >= max_steps) and training.is_over():
            return training.log


if __name__ == "__main__":
    arguments = [int(a) for a in sys.argv[1:]]
    seed = arguments[0] if arguments else 0
    report(f"DQN, seed {seed}", train(DQN(seed), seed, *arguments[1:2]))
