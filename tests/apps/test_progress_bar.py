from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import pytest

from restore_rwkv.apps.cli import progress
from restore_rwkv.apps.cli.progress import Bar, in_words, progress_bar, shortened
from restore_rwkv.apps.cli.terminal import say_aside, screen
from restore_rwkv.io.progress import SHARE, PartProgress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bar(clock: Clock) -> Bar:
    return Bar("reading t1.nii.gz", "restoring", "slices", progress._display(), clock)


def line(bar: Bar) -> str:
    """What the display shows, in words."""
    (task,) = bar._display.tasks
    return " ".join(filter(None, (task.description, bar.count(), bar.left())))


def test_the_first_line_stands_before_any_number(bar: Bar, clock: Clock) -> None:
    clock.now += 61
    assert line(bar) == "reading t1.nii.gz"
    assert bar.elapsed() == "0:01:01"


def test_the_time_left_counts_from_the_last_stage(bar: Bar, clock: Clock) -> None:
    clock.now += 50
    bar.stage("restoring", "slices")
    clock.now += 10
    bar(4, 40)  # the first numbers may come after the first batch
    assert line(bar) == "restoring 4/40 slices 90 s left"
    clock.now += 30
    assert line(bar) == "restoring 4/40 slices 60 s left"
    bar(16, 40)
    assert line(bar) == "restoring 16/40 slices 60 s left"


def test_numbers_without_a_stage_have_the_title(bar: Bar) -> None:
    bar(0, 5)
    assert line(bar) == "restoring 0/5 slices"


def test_another_total_or_a_step_back_counts_anew(bar: Bar, clock: Clock) -> None:
    for done, total in ((5, 10), (10, 10), (2, 8), (1, 8)):
        clock.now += 7
        bar(done, total)
    assert line(bar) == "restoring 1/8 slices 49 s left"


@pytest.mark.parametrize("numbers", [(0, 0), (5, 3), (7, 0), (0, 9)])
def test_odd_numbers_have_no_time_left(bar: Bar, numbers: tuple[int, int]) -> None:
    bar(*numbers)
    assert bar.left() == ""


def test_a_stage_with_numbers_of_its_own_begins_at_none(bar: Bar) -> None:
    bar(3, 5)
    bar.stage("writing")
    assert line(bar).startswith("writing 3/5 slices")
    bar.stage("restoring", "slices")
    assert line(bar) == "restoring"


def test_shares_of_several_inputs_go_on_over_stages(bar: Bar, clock: Clock) -> None:
    part = PartProgress(bar, 1000, 1000, 2000, "b.nii")
    part.stage("restoring", "slices")
    clock.now += 10
    part(1, 2)
    part.stage("scoring")
    assert progress.SHARE == SHARE
    assert line(bar) == "b.nii: scoring 75 % 3 s left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7500, "2 h 5 min")],
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_long_name_keeps_both_ends() -> None:
    name = shortened(f"reading {'x' * 90}_run-2.nii.gz")
    assert len(name) <= 44
    assert name.startswith("reading xx")
    assert name.endswith("_run-2.nii.gz")


def test_nothing_is_shown_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("reading", "restoring", "slices") as shown:
        assert shown is None
    assert capsys.readouterr() == ("", "")


def test_a_line_aside_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    screen.reset(as_json=False)
    with progress_bar("reading t1.nii.gz", "restoring", "slices") as shown:
        assert shown is not None
        say_aside("warning: [odd] " + "word " * 40)
        shown(1, 2)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    assert ("warning: [odd] " + "word " * 40).strip() in lines
    assert any(line.startswith("reading t1.nii.gz") for line in lines)
    assert screen.bar is None


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is of POSIX")
def test_restore_shows_a_bar_on_a_terminal_from_the_first_second(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        words = ["restore", str(scan), "-o", str(tmp_path / "out.nii.gz"), "-t", "mri-sr"]
        os.environ.update(TERM="xterm", COLUMNS="100")
        command = [sys.executable, "-m", "restore_rwkv", *words, "--weights", str(tiny_weights)]
        os.execv(sys.executable, command)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the end, on Linux
            break
        if not part:
            break
        shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    text = shown.decode()
    assert text.index("reading scan.nii.gz") < text.index("restored; how it was made")
    assert "\x1b[?25h" in text  # the cursor is back
