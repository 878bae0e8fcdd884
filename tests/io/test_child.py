"""A child process that decodes: its limits, its end, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io.child import Child

DECODER = """
import os, signal, time
import numpy as np
def decode(request, data):
    match request["what"]:
        case "abort": os.abort()
        case "kill": os.kill(os.getpid(), signal.SIGKILL)
        case "exit": os._exit(3)
        case "hang": time.sleep(60)
        case "memory": return np.ones(1 << 32, np.uint8)
        case "fail": raise ValueError("bad\\nbytes")
        case "pid": return np.array([os.getpid()])
    return np.frombuffer(data, "<u2").reshape(2, -1)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    (tmp_path / "decoder_of_test.py").write_text(DECODER)
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), inherited]))
    return Child("decoder_of_test:decode")


def ask(child: Child, what: str, seconds: float = 20.0) -> Any:
    return child.decode({"what": what}, np.arange(6, dtype="<u2").tobytes(), "a.dcm", 100, seconds)


def test_arrays_come_back_and_one_process_serves_all(child: Child) -> None:
    with child:
        assert ask(child, "").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert ask(child, "pid") == ask(child, "pid") != os.getpid()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("abort", r"a.dcm: the pixel data stops its decoder \(signal 6\), so it is damaged"),
        ("kill", r"stops its decoder \(signal 9\)"),
        ("exit", r"stops its decoder \(exit code 3\)"),
        ("hang", "took longer than 1 s"),
        ("memory", "needs far more memory than its size announces"),
        ("fail", r"a.dcm: the pixel data cannot be decoded \(bad bytes\)"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of memory of Linux")
def test_what_ends_a_decoder_is_an_error_and_the_next_image_is_decoded(
    child: Child, what: str, message: str
) -> None:
    with child:
        with pytest.raises(InputError, match=message):
            ask(child, what, 1.0 if what == "hang" else 20.0)
        assert ask(child, "").shape == (2, 3)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interruption_leaves_no_process(child: Child, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from restore_rwkv.io.child import Child\n"
        "with Child('decoder_of_test:decode') as child:\n"
        "    print(int(child.decode({'what': 'pid'}, b'', 'a', 1)[0]), flush=True)\n"
        "    child.decode({'what': 'hang'}, b'', 'a', 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.send_signal(signal.SIGINT)
        _, said = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
