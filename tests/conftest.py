"""What every test gets: the settings of the library as they were, and a header that names them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest
from fastdl import _core
from harness import (
    CPU_BACKENDS,
    EMULATED_FEW,
    EMULATED_SIZE,
    EMULATOR,
    admits_dtype,
    emulated,
)

hypothesis.settings.register_profile(
    "fastdl", deadline=None, derandomize=True, max_examples=50, database=None, print_blob=True
)
hypothesis.settings.load_profile("fastdl")
os.environ.setdefault("FASTDL_CUEMU_SHUFFLE", "1")


def pytest_report_header() -> list[str]:
    here, compiled = _core.backends(), _core.all_backends()
    absent = [name for name in compiled if name not in here]
    lines = [f"fastdl: backends {', '.join(here)}; {_core.get_num_threads()} threads"]
    if absent:
        lines.append(f"fastdl: NOT TESTED, this machine cannot run them: {', '.join(absent)}")
    unit = _core.config()["bf16_unit"]
    if unit != "amx":
        lines.append(f"fastdl: NOT TESTED, bf16 goes no further than '{unit}' on this machine")
    if len([name for name in CPU_BACKENDS if name != "generic"]) < 2:
        lines.append("fastdl: NOT TESTED, needs two backends with FMA: equal bits between them")
    if EMULATOR in here:
        missing = sorted(set(_core.op_names()) - emulated())
        lines.append(f"fastdl: on {EMULATOR} fewer repeats and random cases, threads shuffled")
        lines.append(f"fastdl: NOT TESTED on {EMULATOR}: cases of over {EMULATED_SIZE} elements")
        lines.append(f"fastdl: NOT TESTED on {EMULATOR}, no CUDA kernel yet: {', '.join(missing)}")
    else:
        lines.append(f"fastdl: NOT TESTED, built without FASTDL_CUEMU: CUDA kernels on {EMULATOR}")
    return lines


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The emulator gets the tests of the kernels it has, and those that ask for it by a mark."""
    unfit = [item for item in items if not fits_backend(item)]
    config.hook.pytest_deselected(items=unfit)
    items[:] = [item for item in items if fits_backend(item)]


def pytest_collection_finish() -> None:
    gc.freeze()  # fifty thousand tests are a second of every gc.collect()


def fits_backend(item: pytest.Item) -> bool:
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if "chosen" in given and not admits_dtype(
        given["chosen"][0], given.get("dtype"), given.get("backend")
    ):
        return False
    if given.get("backend") != EMULATOR or item.get_closest_marker("emulated"):
        return True
    kernel, case = given.get("chosen", (given.get("kernel"), None))
    if kernel is None or kernel.name not in emulated():
        return False
    if case is None:
        return True
    few = item.get_closest_marker("few_emulated") and case not in kernel.cases[:EMULATED_FEW]
    return not few and case.elements <= EMULATED_SIZE


@pytest.fixture(autouse=True)
def library_settings() -> Iterator[None]:
    """Tests may switch the backend and the thread count; the next one does not see it."""
    backend, threads = _core.backend(), _core.get_num_threads()
    before = _core.config()
    yield
    _core.set_work_per_thread(before["work_per_thread"])
    _core.set_stream_bytes(before["stream_bytes"])
    _core.use_bf16_unit(before["bf16_unit"])
    _core.use_backend(backend)
    _core.set_num_threads(threads)


@pytest.fixture(params=_core.backends())
def backend(request: pytest.FixtureRequest) -> str:
    _core.use_backend(request.param)
    return str(request.param)
