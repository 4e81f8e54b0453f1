"""The script of a machine with a GPU runs to its end without one, on the emulator."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fastdl import _core
from harness import EMULATOR

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(EMULATOR not in _core.backends(), reason="needs FASTDL_CUEMU")


def test_all_stages_run_on_the_emulator(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", EMULATOR, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert found["device"] == EMULATOR and found["commit"] in path.name
    stages = {s["stage"]: s for s in found["stages"]}
    assert list(stages) == ["copy", "harness", "memcheck", "racecheck", "bench"]
    for name in ("copy", "harness", "bench"):
        assert stages[name]["ended"] == "ok" and stages[name]["rows"], stages[name]
    assert stages["memcheck"]["ended"].startswith("not run")
    assert sum(row["cases"] for row in stages["harness"]["rows"]) > 1000
    names = " ".join(row["name"] for row in stages["bench"]["rows"])
    assert {"adamw", "cross_entropy", "batch_norm", "bfloat16"} <= set(names.split())


def test_a_stage_that_hangs_or_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    gpu = importlib.import_module("benchmarks.gpu")

    def stage(code: str) -> dict[str, object]:
        monkeypatch.setattr(gpu, "command_of", lambda *_: [sys.executable, "-c", code])
        return gpu.run_stage("copy", EMULATOR)

    monkeypatch.setitem(gpu.SECONDS, "copy", 2)
    hung = stage("import time; print('{\"name\": 1}', flush=True); time.sleep(60)")
    assert hung["ended"] == "stopped after 2 s" and hung["rows"] == [{"name": 1}]
    assert stage("exit(3)")["ended"] == "exit 3"
    failed = stage('print(\'{"name": "relu", "failures": ["wrong"]}\')')
    assert failed["ended"] == "failures"
