"""The command fidelity, and restore --report: what is printed and written, and wrong uses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from restore_rwkv import read_volume, write_volume
from restore_rwkv.io import Volume, outputs
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.tasks import TASKS
from tests.helpers.commands import Call
from tests.helpers.derivable_series import write_source
from tests.helpers.fidelity import contents, nifti, smooth, use_simple


@pytest.fixture
def weights(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    scaling = {name: task.scaling for name, task in TASKS.items()}
    save_weights(path, tiny_network, scaling=scaling, training={})
    return path


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with scan.nii.gz and denoised.nii.gz made of it by something else."""
    use_simple(monkeypatch)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    nifti(folder / "scan.nii.gz", smooth(40, 33, 5))
    nifti(folder / "denoised.nii.gz", 0.98 * smooth(40, 33, 5))
    return folder


def test_restore_with_a_report_prints_the_verdict_and_where_the_files_are(
    call: Call, weights: Path, work: Path
) -> None:
    words = ("restore", "scan.nii.gz", "-o", "out.nii.gz", "-t", "mri-sr", "--weights", weights)
    done = call(*words, "--force", "--report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "Look at one place.",
        "out.fidelity.html: the report",
        "out.contradicted.nii.gz: map, what is contradicted",
    ]
    again = call(*words, "--force", "--report", "-f", "--json")
    values = json.loads(again.stdout)
    assert values["report_path"] == "out.fidelity.html"
    assert values["map_paths"] == {"contradicted": "out.contradicted.nii.gz"}
    assert values["fidelity"]["support"] == "look"
    for path in (values["report_path"], *values["map_paths"].values()):
        assert (work / path).is_file()


def test_a_dry_run_refuses_what_the_report_would(call: Call, weights: Path, work: Path) -> None:
    (work / "out.contradicted.nii.gz").write_text("mine")
    before = contents(work)
    words = ("restore", "scan.nii.gz", "-o", "out.nii.gz", "-t", "mri-sr", "--weights", weights)
    done = call(*words, "--force", "--report", "--dry-run")
    assert done.returncode == 3
    assert (
        "out.contradicted.nii.gz: exists already; name another file, or give --over" in done.stderr
    )
    done = call(*words, "--force", "--report", "--uncertainty", "bootstrap", "--dry-run")
    assert done.returncode == 5
    assert "no calibration of them by bootstrap for mri-sr; leave --uncertainty out" in done.stderr
    done = call(*words, "--force", "--uncertainty", "turns")
    assert done.returncode == 2
    assert done.stderr == ("error: --uncertainty: is part of the report; give --report as well\n")
    assert contents(work) == before


def test_fidelity_prints_figures_and_places_and_writes_beside_the_image(
    call: Call, work: Path
) -> None:
    done = call("fidelity", "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("Look at one place.", "largest difference", "small", "Something was removed."):
        assert text in done.stdout
    assert done.stdout.splitlines()[-3:] == [
        "denoised.fidelity.html: the report",
        "denoised.contradicted.nii.gz: map, what is contradicted",
        "denoised.fidelity.json: all numbers",
    ]
    values = json.loads((work / "denoised.fidelity.json").read_text())
    assert values["provenance"]["command"].startswith("restore-rwkv fidelity scan.nii.gz")
    done = call(
        "fidelity", "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "-f", "--json", "--seed", 7
    )
    printed = json.loads(done.stdout)
    assert printed["seed"] == 7
    assert printed["numbers_path"] == "denoised.fidelity.json"
    assert call("fidelity", "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "-fq").stdout == ""


def test_what_was_restored_here_needs_no_options(call: Call, weights: Path, work: Path) -> None:
    words = ("restore", "scan.nii.gz", "-o", "out.nii.gz", "-t", "mri-sr", "--weights", weights)
    assert call(*words, "--force").returncode == 0
    done = call("fidelity", "scan.nii.gz", "out.nii.gz", "--weights", weights)
    assert (done.returncode, done.stderr) == (0, "")


def test_series_against_series(call: Call, weights: Path, work: Path) -> None:
    write_source(work / "ct", "CT")
    words = ("restore", "ct", "-o", "out/", "--weights", weights, "--force")
    assert call(*words, "--plane", "sagittal").returncode == 0
    done = call("fidelity", "ct", "out", "-q", "--weights", weights)
    assert (done.returncode, done.stderr) == (0, "")
    assert (work / "out.fidelity.html").is_file()
    assert (work / "out.contradicted.dcm").is_file()
    assert {file.suffix for file in (work / "out").iterdir()} == {".dcm"}


def test_4d_images_are_compared_volume_by_volume(call: Call, work: Path) -> None:
    values = np.stack([smooth(24, 20, 3), smooth(24, 20, 3) + 50], axis=3)
    nifti(work / "a.nii.gz", values)
    nifti(work / "b.nii.gz", values + 1)
    done = call("fidelity", "a.nii.gz", "b.nii.gz", "-t", "mri-sr")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: b.nii.gz: has 2 volumes, and the report is about the first; give --volume N for "
        "another\n"
    )
    assert nibabel.load(work / "b.contradicted.nii.gz").shape == (24, 20, 3)
    assert (
        call("fidelity", "a.nii.gz", "b.nii.gz", "-t", "mri-sr", "--volume", 1, "-f").stderr == ""
    )


def _wrong_grid(work: Path) -> tuple[object, ...]:
    nifti(work / "b.nii.gz", smooth(40, 32, 5))
    return "scan.nii.gz", "b.nii.gz", "-t", "mri-sr"


def _moved(work: Path) -> tuple[object, ...]:
    affine = nibabel.load(work / "scan.nii.gz").affine.copy()
    affine[2, 3] += 3
    nifti(work / "b.nii.gz", smooth(40, 33, 5), affine)
    return "scan.nii.gz", "b.nii.gz", "-t", "mri-sr"


def _other_modality(work: Path) -> tuple[object, ...]:
    write_source(work / "ct", "CT")
    write_source(work / "mr", "MR")
    return "ct", "mr"


def _wrong_task(work: Path) -> tuple[object, ...]:
    write_source(work / "ct", "CT")
    write_source(work / "b", "CT", lambda image: setattr(image, "RescaleIntercept", 1))
    return "ct", "b", "--task", "mri-sr"


def _other_unit(work: Path) -> tuple[object, ...]:
    nifti(work / "b.nii.gz", smooth(40, 33, 5) / 1000)
    return "scan.nii.gz", "b.nii.gz", "-t", "mri-sr"


def _without_geometry(work: Path) -> tuple[object, ...]:
    np.save(work / "b.npy", smooth(40, 33, 5).astype(np.float32)[::-1])
    return "scan.nii.gz", "b.npy", "-t", "mri-sr"


def _without_plane(work: Path) -> tuple[object, ...]:
    np.save(work / "a.npy", smooth(40, 33, 5).astype(np.float32))
    np.save(work / "b.npy", smooth(40, 33, 5).astype(np.float32) + 1)
    return "a.npy", "b.npy", "-t", "mri-sr", "--plane", "axial"


def _report_exists(work: Path) -> tuple[object, ...]:
    (work / "denoised.contradicted.nii.gz").write_text("mine")
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr"


def _numbers_of_another(work: Path) -> tuple[object, ...]:
    write_volume(_plain(read_volume(work / "denoised.nii.gz")), work / "denoised.mha")
    (work / "denoised.fidelity.json").write_text('{"output": "denoised.mha"}')
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "-f"


def _plain(volume: Volume) -> Volume:
    return Volume(volume.data, np.diag([0.8, 0.8, 2.5, 1]))


def _is_input(work: Path) -> tuple[object, ...]:
    os.link(work / "scan.nii.gz", work / "link.nii.gz")
    return "scan.nii.gz", "scan.nii.gz", "-t", "mri-sr"


def _reversed_order(work: Path) -> tuple[object, ...]:
    (work / "scan.fidelity.html").symlink_to("denoised.nii.gz")
    return "denoised.nii.gz", "scan.nii.gz", "-t", "mri-sr", "-f"


def _unknown_task(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz"


def _missing(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii", "-t", "mri-sr"


def _volumes(work: Path) -> tuple[object, ...]:
    nifti(work / "b.nii.gz", np.stack([smooth(40, 33, 5)] * 2, axis=3))
    return "scan.nii.gz", "b.nii.gz", "-t", "mri-sr"


def _no_such_volume(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "--volume", "2"


def _small_factor(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "--factor", "0.5"


def _large_factor(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "--factor", "50"


def _other_orientation(work: Path) -> tuple[object, ...]:
    volume = read_volume(write_source(work / "ct", "CT"))
    assert volume.affine is not None
    turned = volume.affine @ np.diag([1.0, -1.0, 1.0, 1.0])
    turned[:3, 3] += (volume.data.shape[1] - 1) * volume.affine[:3, 1]
    write_volume(Volume(volume.data[:, ::-1], turned), work / "b.nii.gz")
    return "ct", "b.nii.gz"


def _no_page(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "-o", "report.pdf"


def _unknown_weights(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "--weights", "light-mri"


def _weights_of_another_task(work: Path) -> tuple[object, ...]:
    return "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "--weights", "light-ct-denoise"


WRONG: dict[Callable[[Path], tuple[object, ...]], tuple[int, str]] = {
    _wrong_grid: (3, "b.nii.gz: has shape (40, 32, 5), the scan (40, 33, 5); resample it onto"),
    _moved: (3, "b.nii.gz: lies 3 mm from the scan; resample it onto the grid of the scan"),
    _other_modality: (3, "mr: is MR, and ct-denoise restores CT; give a scan and its restored"),
    _wrong_task: (3, "ct: is CT, and mri-sr restores MR; give a scan and its restored form, or"),
    _other_unit: (3, "give it in the unit of the scan, or --force if it is"),
    _without_geometry: (3, "b.npy: fits the scan better with axis 0 reversed"),
    _without_plane: (2, "a.npy has no geometry; leave --plane at auto"),
    _report_exists: (
        3,
        "denoised.contradicted.nii.gz: exists already; name another file, or give --ov",
    ),
    _numbers_of_another: (3, "denoised.fidelity.json: is the record of denoised.mha; give the"),
    _is_input: (3, "scan.nii.gz: scan and restored image are both scan.nii.gz; give the scan th"),
    _reversed_order: (3, "scan.fidelity.html: is an input; name another output"),
    _unknown_task: (3, "scan.nii.gz: nothing says whether it is MR, CT or PT; give --task mri-sr|"),
    _missing: (3, "denoised.nii: no such file or folder"),
    _volumes: (3, "b.nii.gz: has 2 volumes, scan.nii.gz has 1; give images of the same volumes"),
    _no_such_volume: (2, "--volume 2 is not there: denoised.nii.gz has 1; give one from 0 to 0"),
    _small_factor: (2, "--factor is 0.5; give a number above 1"),
    _large_factor: (2, "--factor 50 leaves no sample of k-space of slices of 40 x 33; give at mos"),
    _other_orientation: (3, "b.nii.gz: its axes run to "),
    _no_page: (3, "report.pdf: the report is a page of HTML; end the name in .html"),
    _unknown_weights: (5, "light-mri: no such file or shipped weights; did you mean light-mri-sr?"),
    _weights_of_another_task: (5, "light-ct-denoise.safetensors: trained for ct-denoise, not mri-"),
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__.strip("_"))
def test_a_wrong_use_is_one_line_and_leaves_all_files_as_they_are(
    make: Callable[[Path], tuple[object, ...]], call: Call, work: Path
) -> None:
    words = make(work)
    code, text = WRONG[make]
    before = contents(work)
    done = call("fidelity", *words)
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert [len(errors), done.returncode] == [1, code], done.stderr
    assert text in errors[0]
    assert all(line.startswith(("error: ", "warning: ")) for line in lines)
    assert done.stdout == ""
    assert contents(work) == before


def test_a_report_in_a_folder_that_is_read_only_is_refused(
    call: Call, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = work / "locked"
    locked.mkdir()
    real = os.access  # the user of the tests may be allowed everything
    monkeypatch.setattr(
        outputs.os, "access", lambda path, mode: Path(path) != locked and real(path, mode)
    )
    done = call(
        "fidelity", "scan.nii.gz", "denoised.nii.gz", "-t", "mri-sr", "-o", locked / "r.html"
    )
    assert done.returncode == 3
    assert done.stderr == (f"error: {locked}: cannot be written to; choose another folder\n")
    assert list(locked.iterdir()) == []
