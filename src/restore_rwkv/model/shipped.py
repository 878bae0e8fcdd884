"""The weights and the sample scan that are part of the package."""

from __future__ import annotations

from pathlib import Path

from restore_rwkv.errors import WeightsError
from restore_rwkv.options import nearest

_PACKAGE = Path(__file__).parents[1]


def shipped_weights() -> dict[str, Path]:
    """Weight files in the package, by name, such as "light-mri-sr"."""
    return {path.stem: path for path in sorted((_PACKAGE / "weights").glob("*.safetensors"))}


def find_weights(name: str | Path) -> Path:
    """Path of a weight file, given as a path or as the name of shipped weights.

    Raises:
        WeightsError: there is no such file and no such name.
    """
    shipped = shipped_weights()
    if str(name) in shipped:
        return shipped[str(name)]
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise WeightsError(f"{name}: is a folder; give a file in it, such as best.safetensors")
    near = nearest(name, shipped, cutoff=0.4)
    hint = f"did you mean {near}? " if near else ""
    raise WeightsError(
        f"{name}: no such file or shipped weights; {hint}shipped: {', '.join(shipped) or 'none'}"
    )


def sample_scan() -> Path:
    """Path of the scan that the demo restores; samples/README.md states its origin and licence."""
    return _PACKAGE / "samples" / "mr_t1gd_a.nii.gz"
