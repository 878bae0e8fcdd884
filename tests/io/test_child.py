"""A child process that decodes: its limits, its end, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io.child import Child, Limits

DECODER = """
import json, os, signal, sys, time
def decode(request, data):
    what = request["what"]
    if what == "abort": os.abort()
    if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit": os._exit(3)
    if what == "hang": time.sleep(60)
    if what == "spin":
        while True: pass
    if what == "memory": return {}, bytes(1 << 32)
    if what == "fail": raise ValueError("bad\\nbytes")
    if what == "long": return {}, bytes(101)
    if what == "print":
        print("to standard output", flush=True)
        os.write(1, b"and to its descriptor")
    if what == "imports": return {"imported": sorted(sys.modules)}, b""
    return {"pid": os.getpid(), "path": sys.path}, data[::-1]
"""
REMEDY = "copy it again"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals of Linux")


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    (tmp_path / "decoder_of_test.py").write_text(DECODER)
    monkeypatch.syspath_prepend(tmp_path)
    return Child("decoder_of_test:decode", REMEDY)


def ask(child: Child, what: str, seconds: float = 20.0, data: bytes = b"abc") -> tuple[dict, bytes]:
    limits = Limits(memory=1 << 28, seconds=seconds, reply=100)
    return child.call("a.dcm: its data", {"what": what}, data, limits)


def test_bytes_come_back_and_one_process_serves_all(child: Child) -> None:
    with child:
        facts, data = ask(child, "")
        assert data == b"cba"
        assert ask(child, "")[0]["pid"] == facts["pid"] != os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("abort", r"its data stops the decoder \(signal 6\); copy it again"),
        ("kill", r"stops the decoder \(signal 9\)"),
        ("exit", r"stops the decoder \(exit code 3\)"),
        ("hang", "keeps the decoder busy for more than 1 s; copy it again"),
        ("memory", r"cannot be decoded \(it needs more memory than its size allows\)"),
        ("long", "has a reply of more than 100 bytes"),
        ("fail", r"^a\.dcm: its data cannot be decoded \(bad bytes\); copy it again$"),
    ],
)
@on_linux
def test_what_ends_a_decoder_is_an_error_and_the_next_image_is_decoded(
    child: Child, what: str, message: str
) -> None:
    with child:
        with pytest.raises(InputError, match=message):
            ask(child, what, 1.0 if what == "hang" else 20.0)
        assert ask(child, "")[1] == b"cba"


def test_what_a_library_prints_is_not_a_reply(child: Child) -> None:
    with child:
        assert ask(child, "print")[1] == b"cba"
        assert ask(child, "")[1] == b"cba"


def test_files_of_the_current_folder_are_not_imported(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(downloads)
    with child:
        facts, _ = ask(child, "")
        assert str(downloads) not in facts["path"]
        assert "torch" not in ask(child, "imports", data=b"")[0]["imported"]


def test_a_process_that_cannot_start_is_not_the_fault_of_the_file() -> None:
    with (
        Child("no_such_module:decode", REMEDY) as child,
        pytest.raises(ConfigError, match=r"does not start \(stops the decoder \(exit code 1\)\)"),
    ):
        ask(child, "")


def test_a_program_without_an_interpreter_does_not_start_itself_again(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with child, pytest.raises(ConfigError, match="no interpreter"):
        ask(child, "")


def test_closing_ends_the_process_and_may_be_repeated(child: Child) -> None:
    pid = ask(child, "")[0]["pid"]
    child.close()
    child.close()
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from restore_rwkv.io.child import Child, Limits
with Child('decoder_of_test:decode', 'x') as child:
    print(child.call('a', {{'what': ''}}, b'', Limits(1 << 28, 9, 9))[0]['pid'], flush=True)
    child.call('a', {{'what': {what!r}}}, b'', Limits(1 << 28, {seconds}, 9))
"""


def _started(folder: Path, what: str, seconds: float) -> tuple[subprocess.Popen[str], int]:
    """A program in the middle of a request, and the identifier of its child."""
    (folder / "decoder_of_test.py").write_text(DECODER)
    program = PROGRAM.format(folder=str(folder), what=what, seconds=seconds)
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.2)
    return parent, pid


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interruption_is_passed_on_and_leaves_no_process(tmp_path: Path) -> None:
    parent, pid = _started(tmp_path, "hang", 60)
    with parent:
        parent.send_signal(signal.SIGINT)
        _, said = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert not _lives(pid)


@pytest.mark.slow
@on_linux
def test_a_child_that_hangs_ends_itself_when_its_parent_was_killed(tmp_path: Path) -> None:
    parent, pid = _started(tmp_path, "spin", 1.0)
    with parent:
        parent.kill()
        parent.communicate(timeout=20)
    until = time.monotonic() + 20
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _lives(pid)
