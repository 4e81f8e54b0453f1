"""The benchmarks run, and their results say what they must."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not part of the package"
)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """What a small run prints and writes."""
    out = tmp_path_factory.mktemp("results")
    short = ("--quick", "--rounds", "2", "--seconds", "0.002", "--threads", "1")
    done = bench("affine", *short, "--peers", "numpy", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.jsonl")
    return done.stdout, [json.loads(line) for line in path.read_text().splitlines()]


def test_results_start_with_the_machine_and_end_with_its_state(results: Any) -> None:
    _, rows = results
    assert [r["record"] for r in (rows[0], rows[-1])] == ["run", "end"]
    head = rows[0]
    assert head["machine"] and head["python"] and head["threads"] == [1]
    if not head["ceilings"]["note"]:
        for dtypes in head["ceilings"]["fma"].values():
            assert all(rate > 0.1 for rates in dtypes.values() for rate in rates.values())
        for curve in head["ceilings"]["bandwidth"]["1"].values():
            assert all(rate > 0.01 for _, rate in curve)


def test_every_case_has_a_time_of_every_contender(results: Any) -> None:
    printed, rows = results
    times = [r for r in rows if r["record"] == "time"]
    kinds = set()
    for case in {r["case"] for r in times}:
        kind = case.rpartition(" ")[0]
        contenders = {"fastdl", "numpy"} | (
            {"fastdl/ops"} if kind in ("forward", "full") else set()
        )
        warm = [r for r in times if r["case"] == case and r["mode"] == "warm"]
        assert {r["contender"] for r in warm} == contenders and len(warm) == len(contenders)
        assert case in printed
        kinds.add(kind)
    assert kinds == {"forward", "full", "X W", "dY W^T", "X^T dY"}


def test_a_time_says_how_it_was_taken(results: Any) -> None:
    _, rows = results
    for r in (r for r in rows if r["record"] == "time"):
        assert r["threads"] == 1 and r["mode"] in ("warm", "cold") and r["version"] and r["isa"]
        assert 0 < r["p10_us"] <= r["us"] <= r["p90_us"]
        assert 0 <= r["dismissed"] <= r["rounds"] and r["rounds"] >= 2
        assert r["indicative"] == (r["rounds"] - r["dismissed"] < 3)
        assert {"commit", "machine", "state"} <= r.keys()


def test_flops_and_bytes_are_those_of_the_kernels(results: Any) -> None:
    _, rows = results
    row = next(r for r in rows if r.get("case") == "forward 32x64x64")
    assert 2 * 32 * 64 * 64 <= row["flops"] < 2.1 * 32 * 64 * 64
    assert row["bytes"] == 4 * (32 * 64 + 64 * 64 + 64 + 32 * 64)


def test_the_ratio_is_that_to_the_best_peer(results: Any) -> None:
    _, rows = results
    warm = [r for r in rows if r.get("case") == "full 32x64x64" and r["mode"] == "warm"]
    us = {r["contender"]: r["us"] for r in warm}
    own = next(r for r in warm if r["contender"] == "fastdl")
    assert own["best_peer"] == "numpy"
    assert own["best_peer_over_this"] == pytest.approx(us["numpy"] / us["fastdl"])


def test_multiply_adds_are_held_against_the_peak_after_the_rounds(results: Any) -> None:
    _, (head, *rows) = results
    if head["ceilings"]["note"]:
        pytest.skip(head["ceilings"]["note"])
    for r in (r for r in rows if r.get("contender") == "fastdl" and r["case"].startswith("X W")):
        best_of_many = head["ceilings"]["fma"][r["isa"]][r["dtype"]]["1"]
        assert (r["peak_gflops"] == best_of_many) == (r["rounds"] == r["dismissed"])
        if r["bound"] == "fma":
            arithmetic_us = r["flops"] / r["peak_gflops"] / 1e3
            assert r["percent_of_ceiling"] == pytest.approx(100 * arithmetic_us / r["us"])


# ---- the arithmetic ------------------------------------------------------------------------------


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks.rounds and benchmarks.ceilings."""
    monkeypatch.syspath_prepend(str(ROOT))
    return tuple(importlib.import_module(f"benchmarks.{name}") for name in ("rounds", "ceilings"))


def test_a_product_is_the_one_that_its_case_names(modules: Any) -> None:
    affine = importlib.import_module("benchmarks.affine")
    calls = [lambda name=name: name for name in affine.PRODUCTS]
    cases = [case for case in affine.CASES if case["product"]]
    assert len(cases) >= len(calls)
    for case in cases:
        assert case.name.startswith(affine._product(case, calls).run() + " ")


def times_of(modules: Any, *rounds: tuple[float, float, float]) -> Any:
    """Rounds of 0.1 s: (microseconds, foreign seconds, waited seconds)."""
    times = modules[0].Times()
    for us, foreign, waited in rounds:
        times.add({"wall": 0.1, "foreign": foreign, "waited": waited}, [us * 1e-6])
    return times


def test_disturbed_rounds_are_dismissed(modules: Any) -> None:
    quiet = [(10.0, 0.0, 0.0), (12.0, 0.005, 0.005), (11.0, 0.0, 0.0)]
    times = times_of(modules, *quiet, (50.0, 0.05, 0.0), (60.0, 0.0, 0.05))
    got = times.summary()
    assert got["us"] == pytest.approx(11) and got["p90_us"] < 12.1
    assert (got["rounds"], got["dismissed"], got["indicative"]) == (5, 2, False)


def test_peaks_are_those_of_undisturbed_rounds(modules: Any) -> None:
    times = modules[0].Times()
    for foreign, peak in ((0.0, 118.0), (0.05, 60.0), (0.0, 120.0), (0.0, None)):
        answer = {"wall": 0.1, "foreign": foreign, "waited": 0.0, "peak": peak}
        times.add(answer, [1e-6])
    assert times.peaks == [118.0, 120.0]


def test_without_undisturbed_rounds_the_least_disturbed_are_an_indication(modules: Any) -> None:
    shares = [(50.0, 0.05, 0.0), (20.0, 0.02, 0.0), (90.0, 0.09, 0.0), (10.0, 0.0, 0.01)]
    got = times_of(modules, *shares).summary()
    assert got["us"] == pytest.approx(15) and got["indicative"] and got["dismissed"] == 4


def test_bandwidth_between_two_sizes_is_between_their_rates(modules: Any) -> None:
    curve = [(1 << 10, 100.0), (1 << 20, 50.0), (1 << 30, 10.0)]
    at = [modules[1].interpolate(curve, size) for size in (1, 1 << 15, 1 << 20, 1 << 25, 1 << 40)]
    assert at == pytest.approx([100, 75, 50, 30, 10])


def test_a_copy_may_go_past_the_cache(modules: Any) -> None:
    kinds = {"copy": [(1, 30.0)], "copy_nt": [(1, 40.0)], "adam": [(1, 50.0)]}
    ceilings = modules[1].Ceilings(bandwidth={"1": kinds})
    assert ceilings.rate("copy", 9, 1) == 40 and ceilings.rate("adam", 9, 1) == 50
    assert ceilings.rate("copy", 9, 2) is None


# ---- what cannot be run --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("nonsense",), "'nonsense' must be one of adam, affine"),
        (("--peers", "caffe"), "must be of jax, numpy"),
        (("--threads", "0"), "the CPUs here, got 0"),
        (("affine", "--against", "no-such-revision"), "no-such-revision"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[str, ...], text: str) -> None:
    done = bench(*arguments)
    assert done.returncode != 0 and text in done.stderr, done.stderr
