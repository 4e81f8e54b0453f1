"""REINFORCE (Williams, 1992) with a learned baseline on CartPole.

The episodes of a batch are laid end to end and padded to a fixed number of rows, so that one
recorded program serves every batch; padded rows have weight 0.

    pip install fastdl gymnasium
    python examples/rl/reinforce.py [SEED [STEPS]]
"""

import sys

import fastdl as fd
import numpy as np
from cartpole import Training, report
from fastdl import nn, ops, optim

GAMMA, LR, ROWS, LONGEST = 0.99, 5e-3, 2_500, 500


class Reinforce:
    """A policy and a baseline, learned from whole episodes."""

    def __init__(self, seed):
        fd.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.policy, self.value = nn.MLP(4, 64, 64, 2), nn.MLP(4, 64, 64, 1)
        parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = optim.Adam(parameters, lr=LR)
        self.update = fd.capture(self._update)

    def act(self, observation, greedy=False):
        logits = self.policy.predict(observation[None])[0]
        if greedy:
            return int(logits.argmax())
        return int(self.rng.random() < 1 / (1 + np.exp(logits[0] - logits[1])))

    def _update(self, obs, action, returns, weight):
        baseline = self.value(obs)[:, 0]
        error = returns - baseline
        chosen = ops.gather(ops.log_softmax(self.policy(obs), dim=1), 1, action)
        loss = -(chosen * error.detach() * weight).sum() + 0.5 * (error * error * weight).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def padded(rows, dtype):
    """Return an array of ROWS + LONGEST rows that begins with these."""
    rows = np.asarray(rows, dtype)
    full = np.zeros((ROWS + LONGEST, *rows.shape[1:]), dtype)
    full[: len(rows)] = rows
    return full


def train(agent, seed, max_steps=200_000):
    """Return the log of a training run."""
    training = Training(agent, seed, max_steps)
    while True:
        obs, actions, rewards, ends = [], [], [], []
        while not obs or not ends[-1] or len(obs) < ROWS:
            obs.append(training.observation)
            actions.append(agent.act(obs[-1]))
            _, reward, _, ended = training.step(actions[-1])
            rewards.append(reward)
            ends.append(ended)
        n = len(obs)
        returns = ops.discounted_returns(np.asarray(rewards, np.float32), np.asarray(ends), GAMMA)
        returns = returns * np.float32(1 - GAMMA)  # of size 1
        weight = np.full(n, 1 / n, np.float32)
        agent.update(
            padded(obs, np.float32), padded(actions, np.int64), padded(returns, np.float32),
            padded(weight, np.float32),
        )  # fmt: skip
        if training.is_over():
            return training.log


if __name__ == "__main__":
    arguments = [int(a) for a in sys.argv[1:]]
    seed = arguments[0] if arguments else 0
    report(f"REINFORCE, seed {seed}", train(Reinforce(seed), seed, *arguments[1:2]))
