"""The benchmarks of docs/deployment.md: their arithmetic, and that they run at small sizes."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import batch, node_load, node_queue, queue_rows, throughput
from tests.helpers.namespace import needs_namespace
from tests.helpers.tools import needs

OPTIONS = argparse.Namespace(days=1, seed=3, send_ms=5.0)


def simulated(load: float, workers: int, **changes: float) -> node_queue.Outcome:
    options = argparse.Namespace(**{**vars(OPTIONS), **changes})
    return node_queue.simulate(load, workers, options, node_load.TIMES)


def test_an_archive_takes_the_mean_of_its_kinds() -> None:
    seconds = {"MR": 36.0, "CT": 360.0}
    hours = throughput.archive_core_hours(1000, {"MR": 3, "CT": 1}, seconds)
    assert hours == pytest.approx(1000 * (0.75 * 36 + 0.25 * 360) / 3600)
    assert throughput.days(4800, machines=10, cores=2) == pytest.approx(10)


def test_a_cost_is_scaled_from_the_median_slice() -> None:
    cost = throughput.Cost([0.5, 0.1, 0.2], 100, 3.0, 1, 1)
    assert (cost.network, cost.total) == (20.0, 23.0)


def test_a_simulation_is_the_same_for_the_same_seed() -> None:
    first, again = simulated(0.2, 1), simulated(0.2, 1)
    assert first.waited == again.waited
    assert first.delivered == again.delivered
    assert simulated(0.2, 1, seed=4).waited != first.waited


def test_a_day_brings_what_the_hospital_sends() -> None:
    series = node_load.arrivals(4, 2, node_load.TIMES, seed=0)
    assert len(series) == pytest.approx(2 * 4 * 550, rel=0.05)
    assert [x.at for x in series] == sorted(x.at for x in series)
    night = sum(x.at % 86400 < 6 * 3600 for x in series)
    assert night == pytest.approx(len(series) * 6 / sum(node_load.HOURS), rel=0.25)
    scans = [x.slices for x in series if x.kind == "CT"]
    assert sum(scans) / len(scans) == pytest.approx(300, rel=0.05)


def test_too_few_workers_leave_a_queue_and_enough_do_not() -> None:
    few, enough = simulated(2, 1), simulated(2, node_load.enough_workers(2, node_load.TIMES))
    assert few.left > 100 > 20 > enough.left
    assert few.busy["workers"] > 0.8  # they rest in the first hours of the night
    assert max(enough.waited) < 3600 < max(few.waited)
    assert min(few.waited) >= 0


def test_a_slow_destination_is_a_queue_of_its_own() -> None:
    found = simulated(0.5, 50, send_ms=1500)
    assert found.busy["sender"] > 0.7
    assert max(found.waited) < 1
    assert max(found.delivered) > 3600


def test_the_queue_is_timed_with_rows_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_rows.main(["--rows", "0", "4000", "--repeats", "3", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| take one instance |" in printed
    assert "4,000 series, filled" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_throughput_is_measured_and_read_by_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = throughput.Kind("CT", "ct-denoise", 32, 32, 10, (1.0, 1.0, 1.0))
    monkeypatch.setattr(throughput, "KINDS", {"CT": small})
    path = tmp_path / "times.json"
    arguments = ["--kinds", "CT", "--json", str(path), "--archive", "1000", "--mix", "CT=1"]
    throughput.main([*arguments, "--whole", "CT", "--whole-jobs", "1", "--price", "2"])
    printed = capsys.readouterr().out
    assert "| CT 32 x 32 x 10 | 10 |" in printed
    assert "whole CT: 1 series by the command, 1 jobs" in printed
    assert "1,000 series (1 CT): " in printed
    times = node_load.read_times(path)["CT"]
    assert times.slices == 10
    assert times.bytes_read > 10 * 2 * 32 * 32
    assert times.seconds > times.around_seconds > 0


@pytest.mark.slow
@needs("Orthanc", "storescu", "dciodvfy")
@needs_namespace()
def test_a_few_series_survive_a_kill_and_a_restart(tmp_path: Path) -> None:
    words = [
        "--only",
        "many",
        "--series",
        "4",
        "--kills",
        "1",
        "--out",
        str(tmp_path / "rows.json"),
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.node_faults", *words], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert row["survived"] is True
    assert "4 derived series in the archive, 0 wrong" in row["result"]


@pytest.mark.slow
def test_a_batch_is_timed_beside_the_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["batch", "--volumes", "2", "--rounds", "1", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", words)
    batch.main()
    assert re.search(r"batch --jobs 1: \d+\.\d+ s .*, \d+\.\d\d times", capsys.readouterr().out)
