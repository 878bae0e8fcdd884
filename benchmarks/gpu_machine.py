"""What `benchmarks.on_gpu` needs on a machine, and what it notes about it.

Imports nothing that could be missing there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "safetensors": "safetensors",
    "nibabel": "nibabel",
    "pydicom": "pydicom",
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "pydantic": "pydantic",
    "annotated_types": "annotated-types",
    "typer": "typer",
    "rich": "rich",
    "lightning_fabric": "lightning-fabric",
    "tensorboardX": "tensorboardX",
    "pytest": "pytest",
}
"""Modules that the stages import, and the package that each comes in."""
_OPTIONAL = {
    "onnxruntime": "tests/ops/test_cumulative.py and tests/model/export",
    "xdist": "several processes for the tests",
}
_SELF = "restore-rwkv"


def missing(modules: Mapping[str, str] = NEEDED, cuda: bool = True) -> list[str]:
    """Return the packages that the stages need and that are not installed."""
    wanted = dict(modules) | ({"triton": "triton"} if cuda else {})
    if sys.version_info < (3, 11):
        wanted["tomli"] = "tomli"
    return [name for module, name in wanted.items() if importlib.util.find_spec(module) is None]


def install(wheels: Path, absent: Sequence[str]) -> None:
    """Install packages from a folder of wheels."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels]
    subprocess.run([*pip, *absent], check=True)


def environment(work: Path) -> dict[str, str]:
    """Return the environment of a stage, in which this package is found in its source.

    Where it is not installed, it has no C kernels, and `work` gets the record of its version that
    an installation would leave: training writes it down.
    """
    paths = [ROOT / "src", ROOT]
    try:
        importlib.metadata.version(_SELF)
    except importlib.metadata.PackageNotFoundError:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
        version = found[1] if found else "0"
        record = work / "record" / f"restore_rwkv-{version}.dist-info"
        record.mkdir(parents=True, exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: {_SELF}", f"Version: {version}", ""]
        (record / "METADATA").write_text("\n".join(lines), encoding="utf-8")
        paths.append(record.parent)
    given = os.environ.get("PYTHONPATH")
    joined = os.pathsep.join([*map(str, paths), *([given] if given else [])])
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": joined, "PYTHONUNBUFFERED": "1"}


def require(words: argparse.Namespace) -> None:
    """End with one line unless all that is needed is there."""
    cuda = words.device == "cuda"
    absent = missing(cuda=cuda)
    if absent and words.wheels:
        try:
            install(words.wheels, absent)
        except subprocess.CalledProcessError:
            sys.exit(f"on_gpu: {words.wheels}: pip could not install from it, see above")
        importlib.invalidate_caches()
        absent = missing(cuda=cuda)
    if absent:
        sys.exit(
            f"on_gpu: not installed: {', '.join(absent)}; pip install -e '.[test]', or give "
            "--wheels FOLDER with them"
        )
    if "training" not in words.skip and not words.slices.is_file():
        sys.exit(f"on_gpu: {words.slices}: no such file; make it with python -m benchmarks.pack")
    import torch

    if cuda and not torch.cuda.is_available():
        sys.exit("on_gpu: PyTorch sees no CUDA GPU here; give --device cpu for a trial")
    note_optional()


def note_optional() -> None:
    """Print what is left out because of a package that is not installed."""
    for module, what in _OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            print(f"on_gpu: {module} is not installed: without {what}", flush=True)


def machine(device: str) -> dict[str, Any]:
    """Return what `machine.json` holds."""
    import torch

    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": _said(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
    }
    for name in ("triton", "numpy", "lightning-fabric"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["memory_mib"] = properties.total_memory // 2**20
        query = ["--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = _said(["nvidia-smi", *query])
    return found


def _said(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
