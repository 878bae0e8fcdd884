"""The viewer in notebooks, and the notebook of the examples."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.apps.notebook import view
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import read_volume
from restore_rwkv.restoration import Restored, Restorer
from restore_rwkv.tasks import NOTICE
from tests.helpers import ROOT

EXAMPLE = ROOT / "examples" / "in_a_notebook.ipynb"


@pytest.fixture
def restored(scan: Path, tiny_weights: Path) -> Restored:
    return Restorer("mri-sr", tiny_weights, "cpu").run(read_volume(scan))


def test_it_shows_both_scans_in_one_window_with_linked_crosshairs(restored: Restored) -> None:
    pytest.importorskip("ipyniivue", reason="ipyniivue is absent")
    halves = view(restored, height=300).children
    assert restored.before is not None
    windows = []
    for half, volume in zip(halves, (restored.before, restored.volume), strict=True):
        (shown,) = half.volumes
        image = nib.Nifti1Image.from_bytes(shown.data)
        assert np.array_equal(image.get_fdata(dtype=np.float32), volume.data)
        assert image.affine == pytest.approx(volume.affine, abs=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert half.opts.is_radiological_convention
        windows.append((shown.cal_min, shown.cal_max))
    assert windows[0] == windows[1]
    assert [half.other_nv for half in halves] == [[halves[1]], [halves[0]]]
    assert all(half.sync_opts["crosshair"] for half in halves)


def test_of_a_file_the_scan_before_is_missing(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ipyniivue", reason="ipyniivue is absent")
    made = Restorer("mri-sr", tiny_weights, "cpu").file(scan, tmp_path / "out.nii.gz")
    with pytest.raises(InputError, match=r"the scan before was not kept; give what Restorer\.run"):
        view(made)


@pytest.mark.parametrize("package", ["ipywidgets", "ipyniivue"])
def test_without_its_package_the_error_names_the_extra(
    restored: Restored, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "ipyniivue":
        pytest.importorskip("ipywidgets", reason="ipywidgets is absent")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r'needs ipy\w+; pip install "restore-rwkv\[notebook\]"'):
        view(restored)


def test_the_example_is_small_and_says_nothing_of_a_machine() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert NOTICE in text
    for word in ("/home", "/root", "/tmp", "site-packages", "0x7f", "Warning", "stderr"):
        assert word not in text, word
    notebook: dict[str, Any] = json.loads(text)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in code)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the client of the kernel
def test_the_example_run_anew_has_the_kinds_of_outputs_that_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for needed in ("nbclient", "ipykernel", "ipyniivue"):
        pytest.importorskip(needed, reason=f"{needed} is absent")
    import nbformat

    from benchmarks.notebook import executed, kinds

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), *sys.path[1:]]))
    stored = kinds(nbformat.read(EXAMPLE, as_version=4))
    assert kinds(executed(EXAMPLE)) == stored
    assert stored == [
        [("stdout",)],
        [("text/html", "text/plain")],
        [("stdout",)],
        [("application/vnd.jupyter.widget-view+json", "text/plain")],
    ]
