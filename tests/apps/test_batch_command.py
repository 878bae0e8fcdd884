"""The command batch: what it prints and writes, how it ends, and how it goes on after any end."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from restore_rwkv.apps.cli import app
from restore_rwkv.apps.cli.batch_progress import BatchProgress
from restore_rwkv.apps.cli.batch_report import worded
from restore_rwkv.apps.cli.progress import Bar, _display
from restore_rwkv.apps.cli.terminal import screen
from restore_rwkv.batch import Outcome, Progressed
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.tasks import ScalingRule
from tests.conftest import TINY
from tests.helpers.batches import below, job, scan, states
from tests.helpers.bids_datasets import write_dataset
from tests.helpers.tools import needs

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pseudo-terminals are of POSIX")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    scaling = {"mri-sr": ScalingRule("robust")}
    save_weights(path, RestoreRWKV(TINY).merged(), scaling=scaling, training={})
    return path


def words(tree: Path, out: Path, weights: Path, *more: object) -> list[str]:
    how = ("-t", "mri-sr", "--weights", weights, "--force", "--consistency", 0, "--device", "cpu")
    return [str(word) for word in ("batch", tree, "-o", out, *how, *more)]


def started(command: list[str], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "restore_rwkv", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **more,
    )


def run(*command: str) -> tuple[int, str, str]:
    with started(list(command)) as program:
        out, err = program.communicate(timeout=120)
    return program.returncode, out, err


def call(monkeypatch: pytest.MonkeyPatch, *command: object) -> int:
    """Run the command in this process."""
    monkeypatch.setattr(sys, "argv", ["restore-rwkv", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        app.run()
    return int(ended.value.code or 0)


def tree_of(folder: Path, count: int, shape: tuple[int, ...] = (32, 32, 2)) -> Path:
    for number in range(count):
        scan(folder / f"p{number % 3}" / f"s{number}.nii.gz", number, shape)
    return folder


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leftovers(out: Path) -> list[str]:
    return [name for name in below(out) if "/." in f"/{name}" or "partial" in name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> dict[str, Any]:
    """A batch of three sound scans and two bad ones."""
    folder = tmp_path_factory.mktemp("batch")
    tree = tree_of(folder / "in", 3)
    (tree / "p0" / "bad[red]\n.nii.gz").write_bytes(b"\x1f\x8b no gzip")
    (tree / "empty.nii").touch()
    more = ("--jobs", 1, "--json", folder / "report.json")
    code, out, err = run(*words(tree, folder / "out", weights, *more))
    report = json.loads((folder / "report.json").read_text())
    return {"folder": folder, "code": code, "out": out, "err": err, "report": report}


@pytest.mark.slow
def test_a_batch_ends_with_a_table_and_an_exit_code(finished: dict[str, Any]) -> None:
    assert finished["code"] == 1
    lines = finished["out"].splitlines()
    row = next(line for line in lines if "s0.nii.gz" in line)
    assert re.search(r"p0/s0.nii.gz +done +\d+\.\d +[\d.]+ kB +[\d.]+ kB", row)
    bad = next(line for line in lines if "bad[red]\\n.nii.gz" in line)
    assert "refused" in bad
    assert "gzip" in bad
    assert re.fullmatch(
        r"3 done, 2 refused; \d+ s, the network \d+ s; every scan: .*overview.html", lines[-1]
    )
    assert (finished["folder"] / "out" / "overview.html").is_file()
    refused = sorted(finished["err"].splitlines())
    assert len(refused) == 2  # and no progress, as stderr is not a terminal
    assert refused[0].startswith("refused: empty.nii: the file is empty; ")
    assert refused[1].startswith("refused: p0/bad[red]\\n.nii.gz: ")


@pytest.mark.slow
def test_the_report_has_every_scan(finished: dict[str, Any]) -> None:
    summary = finished["report"]["summary"]
    assert {name: summary[name] for name in ("done", "skipped", "refused", "failed")} == {
        "done": 3,
        "skipped": 0,
        "refused": 2,
        "failed": 0,
    }
    scans = {entry["name"]: entry for entry in finished["report"]["scans"]}
    assert len(scans) == 5
    assert scans["p0/s0.nii.gz"]["record"]["task"] == "mri-sr"
    assert scans["empty.nii"]["record"] is None
    assert scans["empty.nii"]["kind"] == "input"
    assert states(finished["folder"] / "out" / "manifest.sqlite").keys() == scans.keys()


@pytest.mark.slow
def test_resuming_skips_what_is_done(
    finished: dict[str, Any],
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = finished["folder"]
    command = words(folder / "in", folder / "out", weights, "--jobs", 1)
    assert call(monkeypatch, *command) == 3
    assert "holds a batch already; give --resume to go on" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.nii.gz")}
    assert call(monkeypatch, *command, "--resume", "--json", "-") == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("state") for line in printed] == ["refused", "refused", None]
    assert printed[-1]["summary"]["skipped"] == 3
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.nii.gz")}
    assert call(monkeypatch, *command, "--resume", "--scale", "2") == 3
    assert "was begun with no scale; give the same, or name another" in capsys.readouterr().err
    assert call(monkeypatch, *command, "--resume", "--quiet") == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_lines_of_json_are_all_that_is_on_stdout(tmp_path: Path, weights: Path) -> None:
    tree = tree_of(tmp_path / "in", 2)
    (tree / "empty.nii").touch()
    code, out, _ = run(*words(tree, tmp_path / "out", weights, "--json", "-", "--jobs", 1, "-q"))
    assert code == 1
    *scans, summary = [json.loads(line) for line in out.splitlines()]
    assert {entry["name"]: entry["state"] for entry in scans} == {
        "p0/s0.nii.gz": "done",
        "p1/s1.nii.gz": "done",
        "empty.nii": "refused",
    }
    assert summary["summary"]["done"] == 2


@pytest.mark.slow
def test_parts_and_then_the_whole(tmp_path: Path, weights: Path) -> None:
    tree, out = tree_of(tmp_path / "in", 5), tmp_path / "out"
    for part in ("1/2", "2/2"):
        code, _, err = run(*words(tree, out, weights, "--jobs", 1, "--part", part))
        assert (code, err) == (0, "")
    assert {path.name for path in out.glob("*.html")} == {
        "overview-1-of-2.html",
        "overview-2-of-2.html",
    }
    code, printed, _ = run(*words(tree, out, weights, "--jobs", 1, "--resume"))
    assert code == 0
    assert "5 scans are done already" in printed
    assert (out / "overview.html").read_text().count("data:image/png") == 5


def test_a_tree_without_scans_is_told_and_an_empty_share_is_no_fault(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = tmp_path / "in"
    tree.mkdir()
    (tree / "notes.txt").write_text("no scan")
    assert call(monkeypatch, *words(tree, tmp_path / "out", weights, "--jobs", 1)) == 1
    assert "no scans found" in capsys.readouterr().out
    scan(tree / "s.nii")
    codes = []
    monkeypatch.setattr("restore_rwkv.batch.run._Batch.run", lambda _: None)
    for part in ("1/2", "2/2"):
        more = ("--jobs", 1, "--part", part)
        codes.append(call(monkeypatch, *words(tree, tmp_path / "out", weights, *more)))
    assert codes == [0, 0]
    assert capsys.readouterr().out.count("no scans in this share") == 2


@pytest.mark.parametrize(
    ("code", "more", "message"),
    [
        (2, ("--part", "3/2"), "part 3/2 does not exist; give K/N"),
        (2, ("--part", "all"), "part 'all' is not a share; give K/N, such as 1/8"),
        (2, ("--jobs", "-1"), "--jobs"),
        (2, ("--max-memory", "much"), "--max-memory 'much' is not a size"),
        (2, ("--memory", "much"), "--memory 'much' is not a size"),
        (2, ("--scale", "9"), "scale 9 is out of range"),
        (5, ("--weights", "nowhere"), "nowhere"),
        (3, ("--json", "."), "is a folder; name a file in it"),
        (2, ("--device", "tpu"), "device 'tpu' is unknown"),
    ],
)
def test_wrong_settings_are_one_line(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    more: tuple[str, ...],
    message: str,
) -> None:
    tree = tree_of(tmp_path / "in", 1)
    assert call(monkeypatch, *words(tree, tmp_path / "out", weights, "--jobs", 1, *more)) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--manifest", "elsewhere"), "--manifest: cannot be given with --bids"),
        (("s3://bucket/dataset",), "--bids: takes folders of this machine"),
        (("-o", "s3://bucket/out"), "--bids: takes folders of this machine"),
        (("another",), "--bids: takes one dataset, and 2 are given"),
    ],
)
def test_what_does_not_go_with_bids_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    assert call(monkeypatch, "batch", dataset, "--bids", *more) == 2
    assert message in capsys.readouterr().err
    assert not (dataset / "derivatives").exists()


def test_a_missing_tree_is_one_line_and_its_json_too(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = time.monotonic()
    command = words(tmp_path / "no", tmp_path / "out", weights, "--jobs", 2, "--json", "-")
    assert call(monkeypatch, *command) == 3
    printed = capsys.readouterr()
    assert "no: no such file or folder; check the path" in printed.err
    (line,) = printed.out.splitlines()
    assert json.loads(line)["error"]["exit_code"] == 3
    assert time.monotonic() - begun < 5  # the workers need not start first


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, weights: Path, number: signal.Signals, word: str
) -> None:
    tree, out = tree_of(tmp_path / "in", 40, (64, 64, 8)), tmp_path / "out"
    with started(words(tree, out, weights, "--jobs", 2)) as program:
        wait_for(lambda: list(out.rglob("s*.nii.gz")))
        if number == signal.SIGINT:  # as a terminal sends it, to all processes
            os.killpg(program.pid, number)
        else:
            program.send_signal(number)
        printed, err = program.communicate(timeout=60)
    assert program.returncode == 128 + number
    assert err == f"{word}; the same command with --resume goes on\n"
    assert printed == ""
    assert not leftovers(out)
    images = len(list(out.rglob("s*.nii.gz")))
    assert 0 < images < 40
    assert images == len(list(out.rglob("*.restoration.json")))


@pytest.mark.slow
@POSIX
def test_a_signal_while_workers_start_is_one_line(tmp_path: Path, weights: Path) -> None:
    tree, out = tree_of(tmp_path / "in", 2), tmp_path / "out"
    with started(words(tree, out, weights, "--jobs", 2)) as program:
        wait_for(lambda: (out / "manifest.sqlite").exists())
        time.sleep(0.3)
        os.killpg(program.pid, signal.SIGINT)
        printed, err = program.communicate(timeout=60)
    assert (program.returncode, printed) == (130, "")
    assert err == "interrupted; the same command with --resume goes on\n"
    assert not leftovers(out)


@pytest.mark.slow
@POSIX
def test_killed_at_any_moment_a_batch_goes_on_where_it_was(tmp_path: Path, weights: Path) -> None:
    rng = random.Random(0)
    tree, out = tree_of(tmp_path / "in", 16, (64, 64, 6)), tmp_path / "out"
    begun = time.monotonic()
    code, _, err = run(*words(tree, tmp_path / "whole", weights, "--jobs", 2))
    assert (code, err) == (0, "")
    duration = time.monotonic() - begun
    seen: dict[Path, int] = {}
    for number in range(4):
        with started(words(tree, out, weights, "--jobs", 2, "--resume")) as program:
            time.sleep(rng.uniform(0.4, 1) * duration)
            if number % 2:  # its workers find out by themselves
                os.kill(program.pid, signal.SIGKILL)
            else:
                os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
        now = {path: path.stat().st_mtime_ns for path in out.rglob("s*.nii.gz")}
        assert seen.items() <= now.items()
        seen = now
    assert seen
    code, printed, err = run(*words(tree, out, weights, "--jobs", 2, "--resume"))
    assert (code, err) == (0, ""), printed
    now = {path: path.stat().st_mtime_ns for path in out.rglob("s*.nii.gz")}
    assert seen.items() <= now.items()
    assert not leftovers(out)
    whole, mended = below(tmp_path / "whole"), below(out)
    assert whole.keys() == mended.keys()
    for name, data in whole.items():
        if name.endswith(".nii.gz"):
            assert mended[name] == data
        elif name.endswith(".json"):
            record = json.loads(mended[name])
            assert record["output_sha256"] == json.loads(data)["output_sha256"]
    assert set(states(out / "manifest.sqlite").values()) <= {"done", "skipped"}


@pytest.mark.slow
@POSIX
def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path, weights: Path) -> None:
    import psutil

    tree, out = tree_of(tmp_path / "in", 30, (64, 64, 8)), tmp_path / "out"
    with started(words(tree, out, weights, "--jobs", 2, "--json", "-")) as program:
        wait_for(lambda: list(out.rglob("s*.nii.gz")))
        workers = [
            child
            for child in psutil.Process(program.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        printed, err = program.communicate(timeout=120)
    assert (program.returncode, err) == (0, "")
    *scans, summary = [json.loads(line) for line in printed.splitlines()]
    assert len(scans) == 30
    assert summary["summary"]["done"] + summary["summary"]["skipped"] == 30
    again = [entry for entry in scans if entry["attempts"] > 1]
    assert 1 <= len(again) <= 3
    assert not leftovers(out)


@pytest.mark.slow
@POSIX
def test_of_two_batches_at_once_the_second_is_refused(tmp_path: Path, weights: Path) -> None:
    tree, out = tree_of(tmp_path / "in", 30, (64, 64, 8)), tmp_path / "out"
    with started(words(tree, out, weights, "--jobs", 1)) as first:
        wait_for(lambda: (out / "manifest.sqlite").exists())
        code, _, err = run(*words(tree, out, weights, "--jobs", 1, "--resume"))
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert code == 6
    assert "manifest.sqlite: another process is writing it; wait for it" in err


def _can_mount() -> bool:
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@needs("unshare")
def test_a_full_disk_ends_in_words_and_the_batch_goes_on_later(
    tmp_path: Path, weights: Path
) -> None:
    if not _can_mount():
        pytest.skip("this system lets no one mount a small disk")
    tree, out = tmp_path / "in", tmp_path / "out"
    for number in range(4):  # noise, of which a reader expects that it takes less when compressed
        scan(tree / f"s{number}.nii.gz", number, (96, 96, 16))
    out.mkdir()
    program = " ".join(
        f"'{word}'"
        for word in (sys.executable, "-m", "restore_rwkv", *words(tree, out, weights, "--jobs", 1))
    )
    script = (
        f"mount -t tmpfs -o size=1m none {out}; {program} >/dev/null; echo $?; "
        f"find {out} -name '.*'; mount -o remount,size=100m {out}; {program} --resume >/dev/null; "
        f"echo $?; find {out} -name '.*'; ls {out}/*.nii.gz | wc -l"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=180
    )
    first, *others = done.stdout.split()
    assert first in ("1", "6"), done.stderr
    assert others == ["0", "4"], done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr or "disk is full" in done.stderr
    assert all(re.match("(failed|refused|error): ", line) for line in done.stderr.splitlines())


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_bar_counts_scans_over_all_workers() -> None:
    clock = Clock()
    bar = Bar("looking at in", "restoring", "scans", _display(), clock)
    screen.reset(as_json=False)
    screen.quiet = True
    told = BatchProgress(bar)
    jobs = [job(name) for name in "abcdef"]

    def line() -> str:
        (task,) = bar._display.tasks
        return " ".join(filter(None, (task.description, bar.count(), bar.left())))

    told.found(20)
    assert line() == "looking: 20 scans found"
    told.begun(6, 3)
    told.ended(jobs[5], Outcome(key="f", state="refused"))  # without a worker
    assert line() == "starting 1/6 scans, 1 not restored"
    clock.now += 10
    told.started(jobs[0])
    told.started(jobs[1])
    told.progressed(jobs[1], Progressed("b", "reading", 0, 0))
    told.progressed(jobs[1], Progressed("b", "restoring", 5, 10))
    assert line() == "a 1/6 scans, 1 not restored 90 s left"  # the oldest; a half of five
    told.progressed(jobs[0], Progressed("a", "restoring", 5, 10))
    assert line() == "a 1/6 scans, 1 not restored 40 s left"
    told.ended(jobs[0], Outcome(key="a", state="done"))
    told.started(jobs[1])  # its worker has ended, so it begins anew
    told.progressed(jobs[1], Progressed("b", "restoring", 1, 10))
    assert line().startswith("b 2/6 scans, 1 not restored ")
    (task,) = bar._display.tasks
    assert (task.completed, task.total) == (1500, 5000)
    for one in jobs[1:5]:
        told.ended(one, Outcome(key=one.key, state="failed", reason="disk"))
    assert bar.count() == "6/6 scans, 5 not restored"
    screen.reset(as_json=False)


def test_long_silence_is_told_with_the_scans_that_may_hang(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr("restore_rwkv.apps.cli.batch_progress.time.monotonic", clock)
    told = BatchProgress(None)
    told.begun(2, 0)
    told.started(job("a"))
    for _ in range(5):
        clock.now += 600
        told.progressed(job("a"), Progressed("a", "restoring", 1, 10))
        told.waited()
    assert capsys.readouterr().err == ""
    for _ in range(3):
        clock.now += 301
        told.waited()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nothing has been heard for 15 minutes of a; if a worker hangs, end")
    told.ended(job("a"), Outcome(key="a", state="done"))
    clock.now += 10_000
    told.waited()  # nothing runs
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("start", ["a/t1.nii", "/lab/a/t1.nii", "t1.nii"])
def test_the_name_of_a_scan_is_told_once(start: str) -> None:
    told = worded(f"{start}: is empty; give task='mri-sr'", "a/t1.nii", "/lab/a/t1.nii")
    assert told == "is empty; give --task mri-sr"
    assert worded("b.nii: is empty", "a/t1.nii", "/lab/a/t1.nii") == "b.nii: is empty"


def shown_on_a_terminal(command: list[str], stdout: int | None = None) -> tuple[int, str]:
    """Run a program on a pseudo-terminal; its exit code, and what was shown."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        if stdout is not None:
            os.dup2(stdout, 1)
        os.environ.update(TERM="xterm", COLUMNS="120", OMP_NUM_THREADS="1")
        os.execv(sys.executable, [sys.executable, "-m", "restore_rwkv", *command])
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the end, on Linux
            break
        if not part:
            break
        shown += part
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.mark.slow
@POSIX
def test_a_terminal_shows_one_bar_and_lines_above_it(tmp_path: Path, weights: Path) -> None:
    tree = tree_of(tmp_path / "in", 30, (96, 96, 8))
    (tree / "empty.nii").touch()
    code, text = shown_on_a_terminal(words(tree, tmp_path / "out", weights, "--jobs", 2))
    assert code == 1
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    bars = [line for line in lines if re.match(r"p\d/s\d+\.nii\.gz .*\d+/31 scans", line)]
    assert bars
    assert any("1 not restored" in line and "left" in line for line in bars)
    counts = [int(match[1]) for line in bars if (match := re.search(r"(\d+)/31 scans", line))]
    assert counts == sorted(counts)
    assert sum(line.startswith("refused: empty.nii: the file is empty") for line in lines) == 1
    assert "30 done, 1 refused" in plain
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


@pytest.mark.slow
@POSIX
def test_lines_of_json_reach_a_file_though_there_is_a_bar(tmp_path: Path, weights: Path) -> None:
    tree = tree_of(tmp_path / "in", 3)
    command = words(tree, tmp_path / "out", weights, "--jobs", 1, "--json", "-")
    with (tmp_path / "lines").open("w") as file:
        code, text = shown_on_a_terminal(command, file.fileno())
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert (code, len(lines)) == (0, 4)
    assert "scans" in text
    assert "bytes_written" not in text
