"""What every test gets: the settings of the library as they were, and a header that names them."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from fastdl import _core

hypothesis.settings.register_profile(
    "fastdl", deadline=None, derandomize=True, max_examples=50, database=None, print_blob=True
)
hypothesis.settings.load_profile("fastdl")


def pytest_report_header() -> list[str]:
    here, compiled = _core.backends(), _core.all_backends()
    absent = [name for name in compiled if name not in here]
    lines = [f"fastdl: backends {', '.join(here)}; {_core.get_num_threads()} threads"]
    if absent:
        lines.append(f"fastdl: NOT TESTED, this machine cannot run them: {', '.join(absent)}")
    unit = _core.config()["bf16_unit"]
    if unit != "amx":
        lines.append(f"fastdl: NOT TESTED, bf16 goes no further than '{unit}' on this machine")
    if len([name for name in here if name != "generic"]) < 2:
        lines.append("fastdl: NOT TESTED, needs two backends with FMA: equal bits between them")
    return lines


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
