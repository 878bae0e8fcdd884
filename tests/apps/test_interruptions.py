"""What is left of a run that is killed, interrupted, or finds no space: both outputs or neither."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.interruptions import (
    Place,
    Row,
    at_every_change,
    duration,
    full_disks,
    kills,
    signals,
    two_at_once,
    without_permission,
)
from tests.helpers.odd_files.faults import Fault
from tests.helpers.odd_files.running import Runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and signals of POSIX")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("interrupted"), slices=8)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("server"))
    yield runner
    runner.close()


def faults(rows: list[Row]) -> list[str]:
    return [f"{row.what} {row.when}: {fault}" for row in rows for fault in row.faults]


@pytest.mark.slow
def test_a_kill_at_a_random_moment_leaves_both_outputs_or_neither(place: Place) -> None:
    rows = list(kills(place, duration(place), count=3, seed=1))
    assert len(rows) == 3
    assert not faults(rows)


@pytest.mark.slow
def test_a_kill_at_any_change_of_files_leaves_the_image_never_without_its_record(
    place: Place, runner: Runner
) -> None:
    rows = list(at_every_change(place, runner, "kill"))
    assert rows[-1].happened == "never came"
    assert not faults(rows)


@pytest.mark.slow
def test_a_full_disk_at_any_write_is_one_line_and_leaves_nothing(
    place: Place, runner: Runner
) -> None:
    rows = list(at_every_change(place, runner, "full"))
    assert rows[-1].happened == "never came"
    assert not faults(rows)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is absent")
def test_small_disks_hold_both_outputs_or_neither(place: Place) -> None:
    assert not faults(list(full_disks(place)))


@pytest.mark.slow
def test_a_signal_is_one_line_and_leaves_nothing(place: Place) -> None:
    assert not faults(list(signals(place, duration(place), ("SIGINT",))))


@pytest.mark.slow
def test_what_must_not_be_read_or_written_is_refused_in_one_line(place: Place) -> None:
    assert not faults(list(without_permission(place)))


@pytest.mark.slow
def test_of_two_runs_into_one_output_one_is_refused(place: Place) -> None:
    assert not faults(list(two_at_once(place, tries=1)))


def test_a_fault_strikes_at_its_change_and_nowhere_else(tmp_path: Path) -> None:
    fault = Fault("full", 3, str(tmp_path))
    assert fault.concerns(tmp_path / "a")
    assert not fault.concerns(tmp_path.with_name("other"))
    assert not fault.concerns(3)
    fault.change()
    fault.change()
    for _ in range(2):  # a full disk stays full
        with pytest.raises(OSError, match="No space left"):
            fault.change()
