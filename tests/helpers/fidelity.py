"""Reports without their measures and page: for tests of what is written where, and when."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from restore_rwkv.evaluation.fidelity import Fidelity, FidelityMap, Figure, Place, RestoredPair
from restore_rwkv.io import Progress

_MEASURE = "restore_rwkv.evaluation.fidelity.measure"
_PAGE = "restore_rwkv.evaluation.fidelity.page"


def simple_fidelity(pair: RestoredPair, progress: Progress | None = None) -> Fidelity:
    """Return a report of one figure, one place, and maps that hold the difference."""
    difference = pair.before.data - pair.after.data
    names = ["contradicted", *(["interval"] if pair.spread is not None else [])]
    i, j, k = (int(x) for x in np.unravel_index(np.abs(difference).argmax(), difference.shape))
    return Fidelity(
        pair=pair,
        support="look",
        verdict="Look at one place.",
        figures=(
            Figure(
                name="largest",
                title="largest difference",
                value=float(np.abs(difference).max()),
                unit=pair.after.unit or "",
                support="supported",
                expected="small",
                says="It is the largest.",
                blind_to="The rest.",
            ),
        ),
        maps=tuple(
            FidelityMap(
                name=name,
                title=f"what is {name}",
                volume=pair.after.with_data(difference),
                unit="",
                limit=3.0,
                threshold=None,
                signed=True,
                meaning="A difference.",
                blind_to="All else.",
            )
            for name in names
        ),
        places=(
            Place(
                index=(i, j, k),
                world=None,
                slice=(i, j, k)[pair.axis],
                score=3.5,
                flagged=True,
                radius_mm=5.0,
                before=1.0,
                after=2.0,
                says="Something was removed.",
            ),
        ),
        places_by="by the difference",
        seconds=0.5,
    )


def use_simple(
    monkeypatch: pytest.MonkeyPatch,
    measure: Callable[..., Fidelity] = simple_fidelity,
    page: Callable[[Fidelity, Path], object] = lambda fidelity, path: path.write_text(
        fidelity.verdict
    ),
) -> None:
    """Let reports be made by these functions."""
    monkeypatch.setitem(sys.modules, _MEASURE, SimpleNamespace(measure_fidelity=measure))  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, _PAGE, SimpleNamespace(write_fidelity_page=page))  # type: ignore[misc]


def nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array as NIfTI, with an oblique affine that is aligned to a template."""
    if affine is None:
        affine = np.array([[-0.8, 0, 0.1, 30], [0, 0.8, -0.3, -12], [0, 0.1, 2.5, 4], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    image.header["descrip"] = b"a scan"
    image.header.set_intent("label")
    nibabel.save(image, path)
    return path


def smooth(*shape: int) -> np.ndarray:
    """Return an image with a bright, lopsided bump."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:3]), indexing="ij")
    bump = 900 * np.exp(-3 * ((axes[0] - 0.2) ** 2 + (axes[1] + 0.3) ** 2 + axes[2] ** 2))
    return np.asarray(bump + 60 * (axes[0] > 0.3))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
