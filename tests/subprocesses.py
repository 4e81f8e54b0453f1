"""Runs Python code in a fresh process, for what a process decides once: environment, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def python(
    code: str, *, timeout: float = 300, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The finished process; if it failed, an AssertionError with its output (`check`)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FASTDL_")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def why_not_cuda(library: object) -> str:
    """What a process says that is to use the GPU by this library and cannot."""
    code = """
        import fastdl as fd, numpy as np
        try:
            fd.Tensor(np.ones(3), device="cuda")
        except RuntimeError as e:
            print(e)
        assert not fd.cuda.is_available()
        fd.ops.relu(np.ones(3))
    """
    return python(code, FASTDL_CUDA_LIBRARY=str(library)).stdout.strip()


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
