"""The agents of dqn.py and reinforce.py written in PyTorch, for comparison; see compare.py."""

from itertools import pairwise

import numpy as np
import torch
from dqn import GAMMA, TAU
from dqn import LR as DQN_LR
from reinforce import LR as REINFORCE_LR
from torch import nn
from torch.nn import functional

torch.set_num_threads(1)  # the nets are too small for more


def mlp(*sizes):
    layers = []
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class DQN:
    """Deep Q-learning with a soft target network."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.online, self.target = mlp(4, 128, 128, 2), mlp(4, 128, 128, 2)
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=DQN_LR, fused=True)

    @torch.inference_mode()
    def act(self, observation, greedy=False, epsilon=0.0):
        if not greedy and self.rng.random() < epsilon:
            return int(self.rng.integers(2))
        return int(self.online(torch.from_numpy(observation)).argmax())

    def update(self, *batch):
        obs, action, reward, next_obs, done = map(torch.from_numpy, batch)
        with torch.no_grad():
            goal = reward + self.target(next_obs).amax(1) * (1 - done) * GAMMA
        chosen = self.online(obs).gather(1, action[:, None])[:, 0]
        loss = functional.smooth_l1_loss(chosen, goal)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.target.parameters()), list(self.online.parameters()), TAU
            )


class Reinforce:
    """A policy and a baseline, learned from whole episodes."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.policy, self.value = mlp(4, 64, 64, 2), mlp(4, 64, 64, 1)
        parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=REINFORCE_LR, fused=True)

    @torch.inference_mode()
    def act(self, observation, greedy=False):
        logits = self.policy(torch.from_numpy(observation)).numpy()
        if greedy:
            return int(logits.argmax())
        return int(self.rng.random() < 1 / (1 + np.exp(logits[0] - logits[1])))

    def update(self, *batch):
        obs, action, returns, weight = map(torch.from_numpy, batch)
        error = returns - self.value(obs)[:, 0]
        chosen = functional.log_softmax(self.policy(obs), 1).gather(1, action[:, None])[:, 0]
        loss = -(chosen * error.detach() * weight).sum() + 0.5 * (error * error * weight).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
