"""A restoration with its report: what lies beside the image, in which format, or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import pydicom
import pytest

from restore_rwkv import RestoreOptions, Restorer, read_volume
from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.evaluation.fidelity import (
    Fidelity,
    FidelityOptions,
    ReportOptions,
    RestoredPair,
    fidelity_of_files,
    preview_with_report,
    restore_with_report,
)
from restore_rwkv.evaluation.fidelity.files import map_names
from restore_rwkv.io import Volume, file_sha256, plane_axis, write_volume
from restore_rwkv.io.affines import Plane
from restore_rwkv.io.schema import record_schema
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.model.checkpoint import save_report
from restore_rwkv.model.shipped import sample_scan
from restore_rwkv.restoration import Plan, Restored, Tiling
from restore_rwkv.restoration.uncertainty import Spread
from restore_rwkv.tasks import TASKS, Intervals, ReportCalibration, degrade_file
from tests.helpers.derivable_series import KINDS, Kind, write_source
from tests.helpers.fidelity import contents, nifti, simple_fidelity, smooth, use_simple

FORCE = RestoreOptions(force=True)


@pytest.fixture
def weights(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    """Weights of a tiny network for all tasks."""
    path = tmp_path / "weights" / "tiny.safetensors"
    path.parent.mkdir()
    scaling = {name: task.scaling for name, task in TASKS.items()}
    save_weights(path, tiny_network, scaling=scaling, training={})
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder that holds scan.nii.gz, an MRI, and nothing else."""
    folder = tmp_path / "work"
    folder.mkdir()
    nifti(folder / "scan.nii.gz", smooth(40, 33, 5))
    return folder


@pytest.fixture
def restorer(weights: Path) -> Restorer:
    return Restorer("mri-sr", weights, "cpu")


def calibrate(weights: Path) -> None:
    """Give weights intervals by turns."""
    intervals = Intervals(
        method="turns",
        level=0.9,
        factors={"all": 2.0},
        floor=0.1,
        subjects=3,
        pixels=1000,
        coverage=0.9,
    )
    save_report(weights, {"mri-sr": ReportCalibration(intervals=(intervals,))})


def test_page_and_maps_lie_beside_the_image_and_the_record_has_the_figures(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    reported = restore_with_report(restorer, work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    names = {"out.nii.gz", "out.restoration.json", "out.fidelity.html", "out.contradicted.nii.gz"}
    assert set(contents(work)) == {"scan.nii.gz", *names}
    record = json.loads((work / "out.restoration.json").read_text())
    jsonschema.validate(record, record_schema())
    said = record["fidelity"]
    assert said["support"] == "look"
    assert said["figures"]["largest"]["value"] == pytest.approx(record["change"]["largest"])
    for name in ("out.fidelity.html", "out.contradicted.nii.gz"):
        assert said["files"].pop(name) == file_sha256(work / name)
    assert said["files"] == {}
    image, removed = (
        nibabel.load(work / "out.nii.gz"),
        nibabel.load(work / "out.contradicted.nii.gz"),
    )
    scan = nibabel.load(work / "scan.nii.gz")
    difference = scan.get_fdata() - image.get_fdata()
    np.testing.assert_allclose(removed.get_fdata(), difference, rtol=0, atol=1e-3)  # float32
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "pixdim"):
        np.testing.assert_array_equal(removed.header[name], image.header[name])
    assert removed.header["descrip"].item() == b"what is contradicted"
    assert int(removed.header["intent_code"]) == 0
    provenance = reported.fidelity.pair.provenance
    assert provenance["output_sha256"] == file_sha256(work / "out.nii.gz")
    assert provenance["weights"] == "tiny.safetensors"
    pair = reported.fidelity.pair
    assert (pair.axis, pair.factor, pair.tile) == (2, 4.0, None)
    np.testing.assert_array_equal(pair.after.data, image.dataobj)


def test_the_image_is_that_of_a_restoration_without_a_report(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    restore_with_report(restorer, work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    restorer.file(work / "scan.nii.gz", work / "plain.nii.gz", FORCE)
    assert (work / "out.nii.gz").read_bytes() == (work / "plain.nii.gz").read_bytes()
    record = json.loads((work / "plain.restoration.json").read_text())
    assert record["fidelity"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_of_a_series_are_parametric_maps(
    kind: Kind, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    source = write_source(tmp_path / "in", kind)
    restorer = Restorer(weights=weights, device="cpu")
    volume = read_volume(source)
    assert volume.affine is not None
    options = dataclasses.replace(FORCE, plane=_plane_of(volume))
    reported = restore_with_report(restorer, source, f"{tmp_path}/out/", options)
    assert {path.name for path in reported.files.paths} == {
        "out.fidelity.html",
        "out.contradicted.dcm",
    }
    image = pydicom.dcmread(tmp_path / "out.contradicted.dcm")
    assert image.Modality == "OT"
    assert image.ContentLabel == "CONTRADICTED"
    origin = pydicom.dcmread(next(iter((tmp_path / "out").iterdir())))
    assert image.FrameOfReferenceUID == origin.FrameOfReferenceUID
    assert image.SeriesNumber == origin.SeriesNumber + 1
    restored = reported.restored.volume
    np.testing.assert_array_equal(
        sorted(image.pixel_array.ravel()), sorted((volume.data - restored.data).ravel())
    )
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert record["fidelity"]["files"]["out.contradicted.dcm"] == file_sha256(
        tmp_path / "out.contradicted.dcm"
    )
    assert all(file.suffix == ".dcm" for file in (tmp_path / "out").iterdir())


def _plane_of(volume: Volume) -> Plane:
    """Plane of the slices as they are stored."""
    assert volume.affine is not None
    planes: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
    return next(name for name in planes if plane_axis(volume.affine, name) == 2)


def test_a_series_of_which_no_parametric_map_can_be_made_gets_maps_as_nifti(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    source = write_source(tmp_path / "in", "CT", lambda image: image.pop("PatientName"))
    options = dataclasses.replace(FORCE, plane=_plane_of(read_volume(source)))
    restorer = Restorer(weights=weights, device="cpu")
    reported = restore_with_report(restorer, source, f"{tmp_path}/out/", options)
    assert [path.name for path in reported.files.maps.values()] == ["out.contradicted.nii.gz"]
    assert any("maps of the report are NIfTI" in text for text in reported.restored.record.warnings)


def test_an_output_without_geometry_has_maps_of_its_kind(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    np.save(work / "in.npy", smooth(24, 20, 1)[..., 0].astype(np.float32))
    restore_with_report(restorer, work / "in.npy", work / "out.tif", FORCE)
    assert np.load(work / "out.contradicted.npy").shape == (24, 20)


def test_the_report_of_a_4d_image_is_about_its_first_volume(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    use_simple(monkeypatch, lambda pair, progress: _noted(pair, seen))
    values = np.stack([smooth(24, 20, 3), 5 * smooth(24, 20, 3)], axis=3)
    source = nifti(work / "in.nii.gz", values)
    reported = restore_with_report(restorer, source, work / "out.nii.gz", FORCE)
    assert seen == [pytest.approx(float(values[..., 0].max()))]
    assert nibabel.load(work / "out.nii.gz").shape == (24, 20, 3, 2)
    assert nibabel.load(work / "out.contradicted.nii.gz").shape == (24, 20, 3)
    record = reported.restored.record
    assert (record.volumes, len(record.each_volume)) == (2, 2)
    fidelity = record.fidelity
    assert fidelity is not None
    assert fidelity["support"] == "look"


def test_the_stages_of_a_report_are_told(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stages(list[str]):
        def __call__(self, done: int, total: int) -> None:
            self.append(f"{done}/{total}")

        def stage(self, name: str, unit: str) -> None:
            self.append(name)

    use_simple(monkeypatch)
    said = Stages()
    restore_with_report(restorer, work / "scan.nii.gz", work / "out.nii.gz", FORCE, progress=said)
    assert said == [
        *("reading scan.nii.gz", "loading weights", "restoring", "5/5"),
        *("measuring the fidelity", "writing"),
    ]


def _noted(pair: RestoredPair, seen: list[float]) -> Fidelity:
    seen.append(float(pair.before.data.max()))
    return simple_fidelity(pair)


@pytest.mark.parametrize("name", ["out.nii.gz", "out.npy", "series/"])
@pytest.mark.parametrize("when", ["measure", "page"])
def test_after_an_error_nothing_is_there(
    name: str, when: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> Fidelity:
        raise OSError(28, "No space left on device")

    use_simple(monkeypatch, **{when: fail})
    source = write_source(tmp_path / "in", "CT")
    options = dataclasses.replace(FORCE, plane=_plane_of(read_volume(source)))
    before = contents(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        restore_with_report(
            Restorer(weights=weights, device="cpu"), source, f"{tmp_path}/{name}", options
        )
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "weights"}


@pytest.mark.parametrize("taken", ["out.fidelity.html", "out.contradicted.nii.gz"])
def test_a_file_that_exists_is_refused_before_the_network_runs(
    taken: str, restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    monkeypatch.setattr(Restorer, "run_plan", _not_called)
    (work / taken).write_text("mine")
    before = contents(work)
    given = (restorer, work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    with pytest.raises(InputError, match=rf"{taken}: exists already; .*overwrite=True"):
        restore_with_report(*given)
    preview = preview_with_report(*given)
    assert len(preview.refusals) == 1
    assert taken in preview.refusals[0]
    assert contents(work) == before


def _not_called(*arguments: object, **named: object) -> None:
    raise AssertionError("the network was run")


def test_a_preview_writes_nothing(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    before = contents(work)
    given = (restorer, work / "scan.nii.gz", work / "new" / "out.nii.gz", FORCE)
    assert preview_with_report(*given).refusals == ()
    assert contents(work) == before
    assert {path.name for path in work.iterdir()} == {"scan.nii.gz"}


def test_intervals_without_a_calibration_are_refused_before_weights_are_loaded(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    report = ReportOptions(uncertainty="turns")
    given = (restorer, work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    text = (
        r"tiny\.safetensors: no intervals, .* no calibration of them by turns for mri-sr; leave "
        r"uncertainty out, or calibrate them \(docs/trust\.md\)"
    )
    preview = preview_with_report(*given, report=report)
    assert isinstance(preview.error, WeightsError)
    monkeypatch.setattr(Restorer, "network", _not_called)
    with pytest.raises(WeightsError, match=text):
        restore_with_report(*given, report=report)
    assert set(contents(work)) == {"scan.nii.gz"}


def test_calibrated_intervals_have_a_map(
    weights: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spread(
        restorer: Restorer, plan: Plan, restored: Restored, method: str, **named: object
    ) -> Spread:
        assert (method, named["seed"]) == ("turns", 3)
        return Spread(method="turns", volume=restored.volume, samples=8, scale=1.0)

    use_simple(monkeypatch)
    monkeypatch.setattr(
        "restore_rwkv.restoration.uncertainty.find_spread", find_spread, raising=False
    )
    calibrate(weights)
    report = ReportOptions(uncertainty="turns", seed=3)
    restorer = Restorer("mri-sr", weights, "cpu")
    reported = restore_with_report(
        restorer, work / "scan.nii.gz", work / "out.nii.gz", FORCE, report=report
    )
    assert set(reported.files.maps) == {"contradicted", "interval"}
    assert (work / "out.interval.nii.gz").is_file()
    assert reported.fidelity.pair.calibration is not None
    said = reported.restored.record.fidelity
    assert said is not None
    assert (said["uncertainty"], said["seed"]) == ("turns", 3)
    with pytest.raises(WeightsError, match="by bootstrap for mri-sr"):
        restore_with_report(
            *(restorer, work / "scan.nii.gz", work / "b.nii.gz", FORCE),
            report=ReportOptions(uncertainty="bootstrap"),
        )
    with pytest.raises(ConfigError, match="uncertainty"):
        ReportOptions(uncertainty="guess")  # type: ignore[arg-type]


def test_a_replaced_image_takes_the_old_report_with_it(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of the image before would be read as one of the new image."""
    use_simple(monkeypatch)
    given = (work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    restore_with_report(restorer, *given)
    restore_with_report(restorer, *given, overwrite=True)
    assert (work / "out.fidelity.html").is_file()
    (work / "out.contradicted.nii.gz").write_bytes(b"mine")
    restorer.file(*given, overwrite=True)
    files = {"scan.nii.gz", "out.nii.gz", "out.restoration.json", "out.contradicted.nii.gz"}
    assert set(contents(work)) == files  # what somebody has changed is kept


@pytest.mark.parametrize("entry", [3, {"files": []}, {"files": {"../scan.nii.gz": "x"}}, None])
def test_a_record_that_names_other_files_removes_none(
    entry: object, restorer: Restorer, work: Path
) -> None:
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    record = json.loads((work / "out.restoration.json").read_text())
    (work / "out.restoration.json").write_text(json.dumps(record | {"fidelity": entry}))
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE, overwrite=True)
    assert set(contents(work)) == {"scan.nii.gz", "out.nii.gz", "out.restoration.json"}


@pytest.mark.parametrize("scale", [None, 1.5])
def test_a_pair_of_files_is_the_pair_of_the_restoration(
    scale: float | None, restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has to be given twice, as the record has it."""
    use_simple(monkeypatch)
    options = dataclasses.replace(FORCE, scale=scale)
    monkeypatch.setattr("restore_rwkv.restoration.planning.choose_tiling", _small_tiles)
    made = restore_with_report(restorer, work / "scan.nii.gz", work / "out.nii.gz", options)
    found, files = fidelity_of_files(work / "scan.nii.gz", work / "out.nii.gz")
    assert files is None
    pair, expected = found.pair, made.fidelity.pair
    for name in ("task", "axis", "factor", "signed", "tile", "seed"):
        assert getattr(pair, name) == getattr(expected, name), name
    np.testing.assert_array_equal(pair.before.data, expected.before.data)
    np.testing.assert_array_equal(pair.after.data, expected.after.data)
    assert pair.fit is None  # these weights are not shipped
    with_weights, _ = fidelity_of_files(
        *(work / "scan.nii.gz", work / "out.nii.gz"),
        FidelityOptions(weights=restorer.weights),
    )
    assert with_weights.pair.fit == expected.fit
    assert pair.provenance["record"] == "out.restoration.json"


def _small_tiles(*arguments: object, **named: object) -> Tiling:
    return Tiling(batch=1, tile=(16, 24), memory=1)


def test_the_files_of_a_pair_hold_all_numbers(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    found, files = fidelity_of_files(
        work / "scan.nii.gz", work / "out.nii.gz", output=work / "look" / "case.html"
    )
    assert files is not None
    names = {path.name for path in (work / "look").iterdir()}
    assert names == {"case.html", "case.fidelity.json", "case.contradicted.nii.gz"}
    values = json.loads((work / "look" / "case.fidelity.json").read_text())
    assert values["format"] == "restore-rwkv fidelity 1"
    assert values["output"] == "out.nii.gz"
    assert values["provenance"]["source_sha256"] == file_sha256(work / "scan.nii.gz")
    assert values["maps"]["contradicted"]["file"] == "case.contradicted.nii.gz"
    assert values["figures"]["largest"]["value"] == found.figures[0].value
    assert values["places"][0]["says"] == "Something was removed."


def test_an_image_restored_by_something_else_needs_a_task_only(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    nifti(work / "other.nii.gz", 0.9 * smooth(40, 33, 5))
    found, _ = fidelity_of_files(
        work / "scan.nii.gz", work / "other.nii.gz", FidelityOptions(task="mri-sr")
    )
    assert (found.pair.axis, found.pair.factor, found.pair.fit) == (2, None, None)
    assert found.pair.before.modality == found.pair.after.modality == "MR"


def test_an_image_that_has_changed_is_not_what_its_record_says(
    restorer: Restorer,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_simple(monkeypatch)
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    nifti(work / "out.nii.gz", smooth(40, 33, 5) + 1)
    found, _ = fidelity_of_files(
        work / "scan.nii.gz", work / "out.nii.gz", FidelityOptions(task="mri-sr")
    )
    assert "weights" not in found.pair.provenance
    assert "has changed since its record out.restoration.json was written" in caplog.text


def test_another_scan_than_the_restored_one_is_warned_of(
    restorer: Restorer,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_simple(monkeypatch)
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    nifti(work / "other.nii.gz", smooth(40, 33, 5) + 2)
    found, _ = fidelity_of_files(work / "other.nii.gz", work / "out.nii.gz")
    assert "other.nii.gz: is not the file that was restored (scan.nii.gz" in caplog.text
    assert any("is not the file" in text for text in found.pair.provenance["warnings"])


def test_a_damaged_record_is_named(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    for text in ("{", "[]", '{"format": "restore-rwkv record 1", "task": "mri-sr"}'):
        (work / "out.restoration.json").write_text(text)
        with pytest.raises(InputError, match=r"out\.restoration\.json: is not a record .*; rest"):
            fidelity_of_files(work / "scan.nii.gz", work / "out.nii.gz")


def test_other_weights_than_those_of_the_record_are_refused(
    restorer: Restorer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_simple(monkeypatch)
    restorer.file(work / "scan.nii.gz", work / "out.nii.gz", FORCE)
    with pytest.raises(InputError, match=r"restored with tiny\.safetensors .*; leave weights out"):
        fidelity_of_files(
            work / "scan.nii.gz", work / "out.nii.gz", FidelityOptions(weights="light-mri-sr")
        )


@pytest.mark.slow
def test_the_report_of_a_real_scan(tmp_path: Path) -> None:
    """With the measures and the page themselves, on three slices of the sample scan."""
    whole = read_volume(sample_scan())
    middle = whole.data.shape[2] // 2
    part = np.ascontiguousarray(whole.data[:, :, middle - 1 : middle + 2])
    write_volume(Volume(part, whole.affine, "a.u.", "MR"), tmp_path / "good.nii.gz")
    degrade_file(tmp_path / "good.nii.gz", tmp_path / "scan.nii.gz", task="mri-sr")
    restorer = Restorer("mri-sr", device="cpu")
    out = tmp_path / "out.nii.gz"
    reported = restore_with_report(restorer, tmp_path / "scan.nii.gz", out)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    jsonschema.validate(record, record_schema())
    json.dumps(record, allow_nan=False)
    assert set(reported.files.maps) <= set(map_names(TASKS["mri-sr"]))
    for path in reported.files.paths:
        assert record["fidelity"]["files"][path.name] == file_sha256(path)
    found, files = fidelity_of_files(
        tmp_path / "scan.nii.gz", out, output=tmp_path / "again" / "out.fidelity.html"
    )
    assert files is not None
    assert files.numbers is not None
    json.loads(files.numbers.read_text(), parse_constant=pytest.fail)
    assert found.support == reported.fidelity.support
    for first, second in zip(found.figures, reported.fidelity.figures, strict=True):
        assert first.value == pytest.approx(second.value), first.name
    assert [place.index for place in found.places] == [
        place.index for place in reported.fidelity.places
    ]
