"""Runs command lines for `running.Runner`: everything is imported once, and each run is a fork.

It reads one request a line, JSON, from stdin, and answers with one line each on stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from tests.helpers.odd_files.faults import install

_LIBRARIES = (
    "filelock",
    "highdicom",
    "nibabel",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "psutil",
    "pydicom.fileset",
    "pydicom.pixels",
    "rich.progress",
    "rich.table",
    "safetensors.torch",
    "scipy.fft",
    "scipy.ndimage",
    "scipy.optimize",
    "SimpleITK",
    "torch",
)


def import_all() -> None:
    """Import this package and what it imports inside functions, so that forks start at once."""
    import restore_rwkv

    names = [m.name for m in pkgutil.walk_packages(restore_rwkv.__path__, "restore_rwkv.")]
    for name in (*_LIBRARIES, *names):
        if not name.endswith("__main__") and "kernels" not in name:
            try:
                importlib.import_module(name)
            except ImportError:
                continue  # an extra that is not installed


def peak_memory(pid: int) -> int:
    """Return the largest resident memory of a process so far, in bytes; 0 after its end."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def child(request: dict[str, Any]) -> None:
    """Become the command line; does not return."""
    os.setsid()
    os.chdir(request["folder"])
    for name, value in request.get("environment", {}).items():
        os.environ[name] = value
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        os.dup2(os.open(path, flags, 0o600), descriptor)
    sys.argv = ["restore-rwkv", *request["words"]]
    code: object = 1
    if "fault" in request:
        install(**request["fault"])
    try:
        from restore_rwkv.apps.cli import main

        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command line with limits on its time and its memory."""
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        child(request)
    peak, killed, status, pause = 0, "", None, 0.002
    while status is None:
        peak = max(peak, peak_memory(pid))
        too_long = time.monotonic() - start > request["seconds"]
        if not killed and (too_long or peak > request["bytes"]):
            killed = "time" if too_long else "memory"
            os.kill(pid, signal.SIGKILL)
        ended, code = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if ended else None
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # what it has started and left
    seconds = round(time.monotonic() - start, 2)
    return {"exit": status, "killed": killed, "peak": peak, "seconds": seconds}


def serve() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_all()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    serve()
