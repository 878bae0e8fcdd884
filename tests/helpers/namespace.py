"""A network of its own for a program, in which servers that listen to all the world hear nobody.

The program is started anew in a network namespace that has a loopback only; its ports are not those
of this machine. It may mount disks there, which only it sees.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

MARK = "RESTORE_RWKV_NAMESPACE"
_ROOT = Path(__file__).resolve().parents[2]
_CALL = """
import importlib, json, sys
module, name, arguments = sys.argv[1:]
found = getattr(importlib.import_module(module), name)(**json.loads(arguments))
print("\\n" + json.dumps(found))
"""


def inside() -> bool:
    """Return whether this process is in such a network."""
    return os.environ.get(MARK) == str(os.stat("/proc/self/ns/net").st_ino)


@functools.cache
def available() -> bool:
    """Return whether this machine allows to make one."""
    if inside():
        return True
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return run([sys.executable, "-c", ""], timeout=60).returncode == 0


def run(words: Sequence[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a network of its own, and end all that it started.

    A program restarts itself there with
    ``if not inside(): sys.exit(run([sys.executable, *sys.argv]).returncode)``.

    Args:
        words: program and arguments.
        timeout: seconds after which it is killed; its output is kept then too.
    """
    mark = f"{MARK}=$(stat -Lc %i /proc/self/ns/net)"
    script = f'ip link set lo up && exec env "{mark}" "$@"'
    process = subprocess.Popen(
        ["unshare", "-rnm", "sh", "-c", script, "sh", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that servers of a killed program end with it
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])},
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\nkilled after {timeout} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(list(words), process.returncode, out, err)


def call(function: Callable[..., Any], timeout: float = 120, **arguments: Any) -> Any:
    """Call a function of a module in a network of its own.

    Args:
        function: of a module of `tests` or `benchmarks`.
        timeout: seconds.
        **arguments: of the function; values of JSON.

    Returns:
        What it returns; values of JSON.

    Raises:
        AssertionError: it raised; with what it wrote to its standard error.
    """
    module, name = function.__module__, function.__name__
    words = [sys.executable, "-c", _CALL, module, name, json.dumps(arguments)]
    ended = run(words, timeout)
    assert ended.returncode == 0, f"{module}.{name}: {ended.stderr}"
    return json.loads(ended.stdout.splitlines()[-1])


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Give a folder on a disk in memory of so many bytes; what is in it goes at the end.

    Its room changes by ``subprocess.run(["mount", "-o", "remount,size=...", folder])``.
    """
    if not inside():
        raise RuntimeError("mounts are for a namespace; start it by tests.helpers.namespace")
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def needs_namespace() -> pytest.MarkDecorator:
    """Mark a test that needs one; without the permission it is skipped."""
    return pytest.mark.skipif(not available(), reason="unshare -rnm is absent or not permitted")
