from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from restore_rwkv.apps.cli.stopping import Stopping

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")


def python(code: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **more},
    )


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGHUP, "hung up"),
    ],
)
def test_a_signal_is_one_line_and_files_are_cleaned_up(
    number: signal.Signals, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def work() -> None:
        with Stopping():
            try:
                os.kill(os.getpid(), number)
            except KeyboardInterrupt as error:
                raise ImportError("as NumPy does while it is imported") from error
            finally:
                cleaned.append(True)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        work()
    assert end.value.code == 128 + number
    assert cleaned == [True]
    assert signal.getsignal(number) == before
    assert capfd.readouterr().err in (f"{word}\n", "")  # pytest may hold the stream


def test_a_command_may_say_how_to_go_on() -> None:
    code = (
        "import os, signal\n"
        "from restore_rwkv.apps.cli.stopping import Stopping\n"
        "with Stopping():\n"
        "    Stopping.hint = 'the same command with --resume goes on'\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    result = python(code)
    assert result.stderr == "terminated; the same command with --resume goes on\n"
    with Stopping():
        assert Stopping.hint == ""  # of the next command


def test_an_error_without_a_signal_passes() -> None:
    with pytest.raises(KeyError), Stopping():
        raise KeyError


def test_what_is_ignored_stays_ignored() -> None:
    """As `nohup` asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopping.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_pytorch_is_imported_is_one_line(
    number: signal.Signals, tmp_path: Path
) -> None:
    """The C++ of PyTorch aborts the process if an error comes there."""
    (tmp_path / "torch").mkdir()
    fake = f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(20)\n"
    (tmp_path / "torch" / "__init__.py").write_text(fake)
    code = (
        "import sys; sys.argv = ['restore-rwkv', 'restore', 'x.nii', '-o', 'y.nii']\n"
        "from restore_rwkv.apps.cli import main; main()\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    result = python(code, PYTHONPATH=path)
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert (result.returncode, result.stderr, result.stdout) == (128 + number, f"{word}\n", "")


def test_an_interrupt_within_exec_keeps_the_exit_code() -> None:
    """Python would end by killing itself with SIGINT, as it notes a KeyboardInterrupt there."""
    code = (
        "import os, signal\n"
        "from restore_rwkv.apps.cli.stopping import Stopping\n"
        "with Stopping():\n"
        "    exec('os.kill(os.getpid(), signal.SIGINT)')\n"
    )
    result = python(code)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


def test_a_second_signal_ends_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from restore_rwkv.apps.cli.stopping import Stopping\n"
        "with Stopping():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(20)\n"
    )
    result = python(code)
    assert (result.returncode, result.stderr) == (143, "terminated\n")
