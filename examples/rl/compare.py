"""Return against wall-clock: the same agents in fastdl and in PyTorch, side by side.

    pip install fastdl gymnasium torch matplotlib
    python examples/rl/compare.py [SEEDS]

Writes cartpole.png.  Each line is the mean return of the last ten training episodes of one seed;
runs take turns, so that both libraries meet the same machine.
"""

import sys

import dqn
import matplotlib as mpl
import numpy as np
import reinforce
import with_torch
from cartpole import THRESHOLD, report

mpl.use("agg")
from matplotlib import pyplot as plt

AGENTS = {
    "DQN": (dqn.train, {"fastdl": dqn.DQN, "torch": with_torch.DQN}),
    "REINFORCE": (
        reinforce.train,
        {"fastdl": reinforce.Reinforce, "torch": with_torch.Reinforce},
    ),
}
COLORS = {"fastdl": "tab:orange", "torch": "tab:gray"}


def smoothed(values):
    return np.convolve(values, np.ones(10) / 10, "valid")


def main(seeds):
    figure, axes = plt.subplots(1, len(AGENTS), figsize=(11, 4), layout="constrained")
    for axis, (name, (train, made)) in zip(axes, AGENTS.items(), strict=True):
        solved = dict.fromkeys(made, 0)
        for seed in range(seeds):
            for library, make in made.items():
                log = train(make(seed), seed)
                report(f"{name} in {library}, seed {seed}", log)
                solved[library] += log.solved
                label = library if seed == 0 else None
                axis.plot(
                    log.seconds[9:], smoothed(log.returns), color=COLORS[library], label=label, lw=1
                )
        print(f"{name}: {', '.join(f'{k} {n} of {seeds} solved' for k, n in solved.items())}")
        axis.axhline(THRESHOLD, color="black", lw=0.5, ls="--")
        axis.set(title=name, xlabel="seconds of training", ylabel="return, mean of 10 episodes")
        axis.set_xscale("log")
        axis.legend()
    figure.savefig("cartpole.png", dpi=120)
    print("wrote cartpole.png")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
