"""Backends and devices of this machine, found without importing PyTorch.

PyTorch takes more than a second to import. Listing backends and devices only needs files: the built
C kernels, the versions of the installed packages, and the driver of the GPU.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

KERNELS_SWITCH = "RESTORE_RWKV_KERNELS"
"""Environment variable; "0" disables the C kernels, as on a machine without a C compiler."""

BACKENDS = ("reference", "torch", "cpu", "triton")
SWITCHED_OFF = os.environ.get(KERNELS_SWITCH) == "0"  # read once, at import
_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
_OLDEST_TRITON = (3, 5)
_OLDEST_MACOS = (14,)  # required by the Metal backend of current PyTorch


@dataclass(frozen=True)
class Device:
    """A kind of device that a network can run on.

    Attributes:
        name: "cpu", "cuda" or "mps".
        count: number of devices; may be 0.
        threads: number of threads that PyTorch uses on the CPU; 0 for other devices.
    """

    name: str
    count: int
    threads: int = 0


def available_backends() -> dict[str, bool]:
    """Map the name of each backend to whether it can run on this machine.

    Does not import PyTorch. If the operators are already loaded, their own answer is returned.
    """
    dispatch = sys.modules.get("restore_rwkv.ops.dispatch")
    if dispatch is not None:
        answers: dict[str, bool] = dispatch.available_backends()
        return answers
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    kernels = {
        "cpu": not SWITCHED_OFF and None not in (built_kernels(""), built_kernels("_f64")),
        "triton": (interpreted or cuda_devices() > 0) and has_triton(),
    }
    return {name: kernels.get(name, True) for name in BACKENDS}


def devices() -> list[Device]:
    """List the devices that a network can run on, with their number on this machine.

    Does not import PyTorch, except for its builds for AMD GPUs.
    """
    return [
        Device("cpu", 1, cpu_threads()),
        Device("cuda", cuda_devices()),
        Device("mps", int(_has_metal())),
    ]


def built_kernels(*stems: str) -> Path | None:
    """Path of the first of these builds of the C kernels that is installed, None without one.

    Args:
        stems: of builds by width and precision, such as "_avx2"; "" runs on any processor.
    """
    folder = Path(__file__).with_name("cpu")
    names = (f"_kernels{stem}{suffix}" for stem in stems for suffix in EXTENSION_SUFFIXES)
    return next((folder / name for name in names if (folder / name).exists()), None)


def has_triton() -> bool:
    """Return whether a version of Triton that can compile the GPU kernels is installed."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # packaged under another name for other GPUs
        return True
    return tuple(map(int, version.split(".")[:2])) >= _OLDEST_TRITON


def cuda_devices() -> int:
    """Number of GPUs that the installed build of PyTorch can use."""
    build = _torch_build()
    if build.get("hip"):  # only ROCm can count them, and it is loaded with PyTorch
        import torch

        return torch.cuda.device_count()
    if not build.get("cuda"):
        return 0
    try:
        driver = ctypes.CDLL(_DRIVERS[sys.platform])
    except (KeyError, OSError):
        return 0
    version, count = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version)):
        return 0
    if version.value // 1000 < int(build["cuda"].split(".")[0]):  # too old for this build
        return 0
    return 0 if driver.cuDeviceGetCount(ctypes.byref(count)) else count.value


def cpu_threads() -> int:
    """Default number of threads of PyTorch: one per physical core, unless limited by environment.

    This is the rule of MKL, which PyTorch follows on x86.
    """
    cores = len(set(_cores()))
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text) > 0:
            return min(int(text), cores)
    return cores


def _cores() -> Iterator[str]:
    """Yield an identifier of the physical core of each logical processor available here."""
    if not hasattr(os, "sched_getaffinity"):
        yield from map(str, range(os.cpu_count() or 1))
        return
    for processor in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{processor}/topology")
        try:
            yield (topology / "thread_siblings_list").read_text()
        except OSError:
            yield str(processor)


def _torch_build() -> dict[str, str]:
    """Versions of CUDA and HIP with which PyTorch was built, read from its `version.py`."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.findall(r"^(cuda|hip)\b[^=\n]*= *'([^']+)'", text, re.MULTILINE)
    return dict(found)


def _has_metal() -> bool:
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return False
    return tuple(map(int, platform.mac_ver()[0].split(".")[:1])) >= _OLDEST_MACOS
