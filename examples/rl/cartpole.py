"""CartPole: the loops that every agent here shares, whatever library it is written in.

An agent has ``act(observation, greedy)`` and learns in its own way; see dqn.py and reinforce.py.
The environment counts as solved when the mean return of 100 greedy episodes is at least 475.
"""

import time
from dataclasses import dataclass, field

import gymnasium
import numpy as np

THRESHOLD = 475.0


@dataclass
class Log:
    """What a training run showed."""

    returns: list[float] = field(default_factory=list)  # of each training episode
    seconds: list[float] = field(default_factory=list)  # wall-clock at its end
    steps: int = 0
    final: float = 0.0  # mean return of 100 greedy episodes

    @property
    def solved(self):
        return self.final >= THRESHOLD


def evaluate(agent, episodes, seed):
    """Return the mean return of greedy episodes."""
    env = gymnasium.make("CartPole-v1")
    total = 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        done = False
        while not done:
            action = agent.act(observation, greedy=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward
            done = terminated or truncated
    return total / episodes


class Training:
    """Episodes in turn, the clock, and the test whether the agent is good enough to stop."""

    def __init__(self, agent, seed, max_steps):
        self.agent, self.max_steps = agent, max_steps
        self.env = gymnasium.make("CartPole-v1")
        self.env.action_space.seed(seed)
        self.test_seed = 10_000 * (seed + 1)
        self.log = Log()
        self.start = time.perf_counter()
        self.observation, _ = self.env.reset(seed=seed)
        self._return = 0.0

    def step(self, action):
        """Do one step; return (next observation, reward, terminated, whether the episode ended)."""
        following, reward, terminated, truncated, _ = self.env.step(action)
        self.log.steps += 1
        self._return += reward
        self.observation = following
        if terminated or truncated:
            self.log.returns.append(self._return)
            self.log.seconds.append(time.perf_counter() - self.start)
            self._return = 0.0
            self.observation, _ = self.env.reset()
        return following, reward, terminated, terminated or truncated

    def is_over(self):
        """Whether the step budget is used up or the agent solves the task; tests take no time."""
        if self.log.steps < self.max_steps:
            recent = self.log.returns[-10:]
            if len(recent) < 10 or np.mean(recent) < 0.8 * THRESHOLD:
                return False
            before = time.perf_counter()
            good = evaluate(self.agent, 10, self.test_seed) >= THRESHOLD
            good = good and evaluate(self.agent, 100, self.test_seed + 100) >= THRESHOLD
            self.start += time.perf_counter() - before
            if not good:
                return False
        self.log.final = evaluate(self.agent, 100, self.test_seed + 1000)
        return self.log.solved or self.log.steps >= self.max_steps


def report(name, log):
    """Print one line about a run."""
    seconds = log.seconds[-1] if log.seconds else 0.0
    print(
        f"{name}: mean return {log.final:.1f} in 100 episodes after {log.steps} steps, "
        f"{seconds:.1f} s: {'solved' if log.solved else 'not solved'}"
    )
