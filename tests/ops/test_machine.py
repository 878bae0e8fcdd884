from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from restore_rwkv.ops import machine


def without_torch(expression: str, **environment: str) -> object:
    """Value of an expression in a fresh interpreter, which must not import torch."""
    code = (
        "import json, sys; from restore_rwkv.ops import machine\n"
        f"value = {expression}\n"
        "assert 'torch' not in sys.modules; print(json.dumps(value))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return json.loads(result.stdout)


def test_backends_are_those_of_the_loaded_operators() -> None:
    from restore_rwkv.ops import dispatch

    assert without_torch("machine.available_backends()") == dispatch.available_backends()


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["MKL_NUM_THREADS", "OMP_NUM_THREADS", "OTHER"])
@pytest.mark.parametrize("count", ["1", "2"])
def test_threads_are_those_of_torch(variable: str, count: str) -> None:
    names = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment[variable] = count
    threads = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    cleared = {name: environment.get(name, "") for name in names}
    assert without_torch("machine.cpu_threads()", **cleared) == int(threads.stdout)


def test_gpus_are_those_of_torch() -> None:
    assert without_torch("machine.cuda_devices()") == torch.cuda.device_count()


class FakeDriver:
    """A driver of CUDA 12.4 with two GPUs."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, version: SimpleNamespace) -> int:
        version._obj.value = 12040
        return 0

    def cuDeviceGetCount(self, count: SimpleNamespace) -> int:
        count._obj.value = 2
        return 0


@pytest.mark.parametrize(
    ("build", "status", "count"),
    [
        ("cuda: Optional[str] = '12.8'", 0, 2),
        ("cuda = '12.8'", 100, 0),
        ("cuda: Optional[str] = '13.0'", 0, 0),
        ("cuda: Optional[str] = None", 0, 0),
    ],
    ids=["two", "no GPU", "old driver", "CPU build"],
)
def test_gpus_are_counted_by_the_driver(
    build: str, status: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.9'\n{build}\nhip: str = None\n")
    monkeypatch.setattr(machine.sys, "platform", "linux")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver(status))
    assert machine.cuda_devices() == count


def test_no_driver_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_torch_build", lambda: {"cuda": "12.8"})
    monkeypatch.setitem(machine._DRIVERS, sys.platform, str(tmp_path / "none.so"))
    assert machine.cuda_devices() == 0
