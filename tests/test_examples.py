"""Every example runs, in a short form, and says what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"

CASES = {
    "by_hand.py": ("300", r"gradients are those of the formulas\n.*answers \[0, 1, 1, 0\]"),
    "digits.py": ("8", r"test accuracy 0\.9\d\d"),
    "policy_step.py": ("300", r"accuracy 0\.9\d\d; .*\n.*bit for bit"),
    "rl/dqn.py": (
        "3 3000",
        r"DQN, seed 3: mean return \d+\.\d in 100 episodes after 3\d{3} ",
    ),
    "rl/reinforce.py": ("3 60000", r"REINFORCE, seed 3: mean return [234]\d\d\.\d in 100 episodes"),
}
#: What others import, and what needs a library that the tests do not install.
NOT_RUN = {"rl/cartpole.py", "rl/compare.py", "rl/with_torch.py"}


def test_every_example_is_tested():
    found = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py")}
    assert found == {*CASES, *NOT_RUN}
    for name in NOT_RUN:
        compile((FOLDER / name).read_text(), name, "exec")


@pytest.mark.parametrize("name", CASES)
def test_example(name, tmp_path):
    amount, wanted = CASES[name]
    done = subprocess.run(
        [sys.executable, FOLDER / name, *amount.split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(wanted, done.stdout), done.stdout
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
