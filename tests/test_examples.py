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
}


def test_every_example_is_tested():
    assert sorted(path.name for path in FOLDER.glob("*.py")) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_example(name, tmp_path):
    amount, wanted = CASES[name]
    done = subprocess.run(
        [sys.executable, FOLDER / name, amount],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(wanted, done.stdout), done.stdout
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
