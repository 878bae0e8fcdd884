from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from restore_rwkv import RestoreOptions, Restorer, Volume
from restore_rwkv.data import PreparedSet, SetWriter
from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.evaluation import Study, StudyRequest, evaluate, evaluate_set, evaluate_study
from restore_rwkv.evaluation.metrics import paper_score
from restore_rwkv.evaluation.scores import mean_over_patients
from restore_rwkv.evaluation.study.pairing import turn_fault
from restore_rwkv.evaluation.study.tables import write_csv, write_parquet
from restore_rwkv.io import read_volume, write_volume
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.restoration import Restored
from restore_rwkv.tasks import DegradeOptions, ScalingRule
from tests.helpers.evaluations import AFFINE, body, ct_set, write_images
from tests.helpers.synthetic_series import SeriesWriter


@pytest.fixture
def ct_weights(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    path = tmp_path / "ct.safetensors"
    rules = {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    save_weights(path, tiny_network, scaling=rules, training={})
    return path


def means(study: Study, measure: str = "rmse") -> dict[str, float | None]:
    return {s.method: s.mean for s in study.summaries if s.measure == measure}


def values(study: Study, method: str) -> list[dict[str, float | None]]:
    return [dict(score.values) for score in study.scores if score.method == method]


def test_figures_of_a_set_are_those_of_evaluate_set(ct_weights: Path, tmp_path: Path) -> None:
    folder = ct_set(tmp_path / "set")
    study = evaluate_study(StudyRequest(truths=(folder,), weights=(ct_weights,)))
    restorer = Restorer("ct-denoise", ct_weights)
    found = evaluate_set(PreparedSet.read(folder), restorer)
    mean = mean_over_patients(found)
    assert study.methods == ("input", "ct")
    assert means(study) == {
        "input": pytest.approx(mean["input"].rmse),
        "ct": pytest.approx(mean["restored"].rmse),
    }
    assert means(study, "psnr")["ct"] == pytest.approx(mean["restored"].psnr)
    assert {score.patient for score in study.scores} == {"a", "b"}
    assert study.provenance["methods"]["ct"]["weights"] == "ct.safetensors"
    assert "2 patients, 2 scans, 6 slices" in study.sets["ct-denoise"]


def test_figures_of_a_scan_are_those_of_evaluate(tiny_weights: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 900, (24, 20, 2)).astype(np.float32)
    np.save(tmp_path / "scan.npy", image)
    request = StudyRequest(truths=(tmp_path / "scan.npy",), task="mri-sr", weights=(tiny_weights,))
    study = evaluate_study(request)
    found = evaluate(Volume(image), Restorer("mri-sr", tiny_weights))
    assert study.methods == ("input", "cubic", "tiny")
    for method, name in (("input", "input"), ("cubic", "cubic"), ("tiny", "restored")):
        psnr = [value["psnr"] for value in values(study, method)]
        assert psnr == [score.psnr for score in found.slice_scores[name]]


def test_a_slice_without_a_score_says_why(tiny_weights: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 900, (24, 20, 3)).astype(np.float32)
    image[..., 1] = 0
    np.save(tmp_path / "scan.npy", image)
    study = evaluate_study(
        StudyRequest(truths=(tmp_path / "scan.npy",), task="mri-sr", weights=(tiny_weights,))
    )
    empty = [score for score in study.scores if score.slice == 1]
    assert len(empty) == 3
    assert all(score.values["psnr"] is None for score in empty)
    assert {score.reasons["psnr"] for score in empty} == {"the truth is constant within 0 to 4095"}
    psnr = [s for s in study.summaries if s.measure == "psnr"]
    assert [(s.slices, s.without) for s in psnr] == [(2, 1)] * 3


def test_several_weights_have_names_that_tell_them_apart(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    rules = {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    paths = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        paths.append(tmp_path / run / "best.safetensors")
        save_weights(paths[-1], tiny_network, scaling=rules, training={})
    folder = ct_set(tmp_path / "set", slices=1)
    study = evaluate_study(
        StudyRequest(truths=(folder,), weights=tuple(paths), keep=tmp_path / "kept")
    )
    assert study.methods == ("input", "first/best", "second/best")
    assert values(study, "first/best") == values(study, "second/best")
    (kept,) = (tmp_path / "kept" / "first" / "best" / "a").iterdir()
    assert kept.name == "a-1.npy"


def test_each_weights_restore_the_tasks_that_they_are_for(
    ct_weights: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    ct_set(tmp_path / "sets" / "ct", slices=1)
    with SetWriter(tmp_path / "sets" / "mri", "noise", "mri-sr") as writer:
        writer.add("a", "a", "test", np.random.default_rng(0).uniform(0, 900, (1, 16, 16)))
    truths = (tmp_path / "sets",)
    study = evaluate_study(StudyRequest(truths=truths, weights=(ct_weights, tiny_weights)))
    found = {(score.task, score.method) for score in study.scores}
    assert found == {
        *(("ct-denoise", name) for name in ("input", "ct")),
        *(("mri-sr", name) for name in ("input", "tiny")),
    }
    with pytest.raises(WeightsError, match="none is for mri-sr"):
        evaluate_study(StudyRequest(truths=truths, weights=(ct_weights,)))


def test_patients_of_several_sets_are_told_apart(tiny_weights: Path, tmp_path: Path) -> None:
    """Prepared folders number their patients from patient-0001 each."""
    high = np.random.default_rng(0).uniform(0, 900, (2, 16, 16))
    for folder in ("first", "second"):
        with SetWriter(tmp_path / "sets" / folder, "noise", "mri-sr") as writer:
            for patient in "ab":
                writer.add(patient, patient, "test", high)
    study = evaluate_study(StudyRequest(truths=(tmp_path / "sets",), weights=(tiny_weights,)))
    patients = list(dict.fromkeys(score.patient for score in study.scores))
    assert patients == ["first/a", "first/b", "second/a", "second/b"]
    assert {s.patients for s in study.summaries} == {4}


def test_scans_are_summed_up_for_each_task_with_a_progress_that_only_rises(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    rules = {"mri-sr": ScalingRule("robust"), "ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    save_weights(tmp_path / "both.safetensors", tiny_network, scaling=rules, training={})
    generator = np.random.default_rng(0)
    paths = []
    for name, modality in (("a", "MR"), ("b", "CT"), ("c", "MR")):
        image = generator.uniform(-200, 60, (24, 24, 3)) + 300 * (modality == "MR")
        nib.save(nib.Nifti1Image(np.float32(image), np.eye(4)), tmp_path / f"{name}.nii")
        (tmp_path / f"{name}.json").write_text(json.dumps({"Modality": modality}))
        paths.append(tmp_path / f"{name}.nii")
    told: list[float] = []
    study = evaluate_study(
        StudyRequest(truths=tuple(paths), weights=(tmp_path / "both.safetensors",)),
        progress=lambda done, total: told.append(done / total),
    )
    assert list(dict.fromkeys(s.scan for s in study.scores)) == ["a.nii", "b.nii", "c.nii"]
    assert {(s.task, s.patients) for s in study.summaries} == {("mri-sr", 2), ("ct-denoise", 1)}
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_options_and_the_factor_of_the_degradation_reach_the_restorer(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[RestoreOptions] = []
    run = Restorer.run

    def noted(
        restorer: Restorer, volume: Volume, options: RestoreOptions, progress: None
    ) -> Restored:
        given.append(options)
        return run(restorer, volume, options, progress)

    monkeypatch.setattr(Restorer, "run", noted)
    image = np.random.default_rng(0).uniform(0, 900, (24, 20))
    np.save(tmp_path / "scan.npy", image)
    with SetWriter(tmp_path / "set", "noise", "mri-sr", 2.0) as writer:
        writer.add("a", "a", "test", np.stack([image, image]))
    options = RestoreOptions(consistency=3, ensemble=True, force=True)
    request = StudyRequest(
        truths=(tmp_path / "scan.npy", tmp_path / "set"),
        task="mri-sr",
        weights=(tiny_weights,),
        options=options,
    )
    evaluate_study(request)
    # Sets come before scans.
    assert given == [replace(options, factor=2.0), replace(options, factor=4.0)]
    restorer = Restorer("mri-sr", tiny_weights)
    evaluate(Volume(image), restorer, RestoreOptions(factor=5.0), physics=DegradeOptions(factor=3))
    assert given[2] == RestoreOptions(factor=5.0, force=True)


def test_a_manifest_deep_below_does_not_make_a_scan_a_set(tmp_path: Path) -> None:
    """A DICOM export can contain a manifest.json of its own."""
    (tmp_path / "scan" / "export" / "more").mkdir(parents=True)
    (tmp_path / "scan" / "export" / "more" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no DICOM images here"):
        evaluate_study(StudyRequest(truths=(tmp_path / "scan",), task="mri-sr"))


def test_what_a_study_of_a_set_keeps_scores_the_same_again(
    ct_weights: Path, tmp_path: Path
) -> None:
    folder = ct_set(tmp_path / "set")
    first = evaluate_study(
        StudyRequest(truths=(folder,), weights=(ct_weights,), keep=tmp_path / "kept")
    )
    again = evaluate_study(
        StudyRequest(truths=(folder,), restored={"other": tmp_path / "kept" / "ct"})
    )
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["ct"]
    assert values(again, "other") == values(first, "ct")
    assert values(again, "input") == values(first, "input")


def test_what_a_study_of_scans_keeps_scores_the_same_again(
    tiny_weights: Path, tmp_path: Path
) -> None:
    """Also on weights that restore the kept input."""
    image = np.random.default_rng(0).uniform(0, 900, (24, 20, 3)).astype(np.float32)
    write_images(tmp_path / "scans", {"one.nii.gz": image})
    np.save(tmp_path / "scans" / "two.npy", image[..., 0])
    scans = tuple(sorted((tmp_path / "scans").iterdir()))
    kept = tmp_path / "kept"
    request = StudyRequest(truths=scans, task="mri-sr", weights=(tiny_weights,), keep=kept)
    first = evaluate_study(request)
    assert sorted(path.name for path in (kept / "tiny").iterdir()) == ["one.nii.gz", "two.npy"]
    again = evaluate_study(
        StudyRequest(
            truths=(kept / "truth",),
            low=kept / "input",
            restored={"cubic spline": kept / "cubic", "kept": kept / "tiny"},
            weights=(tiny_weights,),
            options=RestoreOptions(factor=4.0),
            task="mri-sr",
        )
    )
    assert again.methods == ("input", "cubic spline", "kept", "tiny")
    for before, after in (("input", "input"), ("cubic", "cubic spline"), ("tiny", "kept")):
        assert values(again, after) == values(first, before)
    assert values(again, "tiny") == values(first, "tiny")


def test_kept_images_replace_nothing_and_never_lie_in_an_input(
    ct_weights: Path, tmp_path: Path
) -> None:
    folder = ct_set(tmp_path / "set")
    with pytest.raises(InputError, match="lies in"):
        evaluate_study(StudyRequest(truths=(folder,), keep=folder / "kept"))
    with pytest.raises(InputError, match="exists already"):
        evaluate_study(StudyRequest(truths=(folder,), keep=folder))


def test_nothing_is_left_of_images_where_a_study_fails(
    ct_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ct_set(tmp_path / "set")
    calls = []

    def stop(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("restore_rwkv.evaluation.study.run.summarise", stop)
    run = Restorer.run
    monkeypatch.setattr(Restorer, "run", lambda *words: stop() or run(*words))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        evaluate_study(
            StudyRequest(truths=(folder,), weights=(ct_weights,), keep=tmp_path / "deep" / "kept")
        )
    assert len(calls) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_images_restored_by_anything_are_scored_as_they_are(tmp_path: Path) -> None:
    truth = body()
    noisy = np.float32(truth + 7)
    write_images(tmp_path / "truth", {"sub-1/ct.nii.gz": truth, "sub-2/ct.nii": body(1)})
    write_images(tmp_path / "mine", {"sub-1/ct.npy": noisy, "sub-2/ct.nii.gz": body(1)})
    study = evaluate_study(
        StudyRequest(
            truths=(tmp_path / "truth",), restored={"mine": tmp_path / "mine"}, task="ct-denoise"
        )
    )
    assert study.methods == ("mine",)
    first = [score for score in study.scores if score.scan == "sub-1/ct"]
    assert [score.patient for score in first] == ["sub-1"] * 3
    for index, score in enumerate(first):
        wanted = paper_score(noisy[..., index], truth[..., index], (-160, 240))
        assert dict(score.values) == {
            "psnr": wanted.psnr,
            "ssim": wanted.ssim,
            "rmse": wanted.rmse,
        }
    same = [score for score in study.scores if score.scan == "sub-2/ct"]
    (reason,) = {score.reasons["psnr"] for score in same}
    assert reason == "the images are identical within the range, so PSNR is infinite"


def test_all_faults_of_all_inputs_are_told_at_once(tmp_path: Path) -> None:
    names = [f"{name}.nii.gz" for name in ("missing", "small", "moved", "unit", "nan", "good")]
    write_images(tmp_path / "truth", {name: body() for name in names})
    far = AFFINE.copy()
    far[0, 3] = 5
    mine = tmp_path / "mine"
    write_images(mine, {"small.nii.gz": body()[..., :2], "good.nii.gz": body()})
    write_images(mine, {"unit.npy": np.float32((body() + 1024) / 4096)})
    holed = body()
    holed[0, 0, 0] = np.nan
    write_images(mine, {"nan.nii.gz": holed})
    nib.save(nib.Nifti1Image(body(), far), mine / "moved.nii.gz")
    with pytest.raises(InputError) as refusal:
        evaluate_study(
            StudyRequest(truths=(tmp_path / "truth",), restored={"m": mine}, task="ct-denoise")
        )
    text = str(refusal.value)
    for words in (
        "inputs: 5 problems; nothing was computed",
        "has no missing, which missing.nii.gz is the truth of",
        "small.nii.gz: has shape (20, 24, 2), the truth (20, 24, 3); resample",
        "moved.nii.gz: lies 5 mm from the truth",
        "HU; give it in the unit of the truth, or force=True",
        "nan.nii.gz: 1 voxels are not finite",
    ):
        assert words in text
    assert text.count("\n") == 5


def test_arrays_of_a_set_are_looked_at_too(tmp_path: Path) -> None:
    folder = ct_set(tmp_path / "set")
    mine = tmp_path / "mine"
    write_images(mine, {"a/a-1.npy": np.zeros((16, 24, 3), np.float32)})
    with pytest.raises(InputError) as refusal:
        evaluate_study(StudyRequest(truths=(folder,), restored={"m": mine}))
    assert "a-1.npy: has shape (16, 24, 3); give (3, 16, 24)" in str(refusal.value)
    assert "mine: has no b/b-1.npy; add it, of shape (3, 16, 24)" in str(refusal.value)


def test_images_that_fit_better_when_turned_are_refused(tmp_path: Path) -> None:
    image = body()
    image[4:8] = -1000
    truth = write_images(tmp_path / "truth", {"a.npy": image, "sub/b.npy": image})
    mine = write_images(tmp_path / "mine", {"a.npy": image[::-1], "sub/b.npy": image + 1})
    request = StudyRequest(
        truths=(truth,), restored={"m": mine}, task="ct-denoise", patient="[ab]$"
    )
    with pytest.raises(InputError, match=r"a\.npy: fits the truth better with axis 0 reversed"):
        evaluate_study(request)
    assert len(evaluate_study(replace(request, options=RestoreOptions(force=True))).scores) == 6


def test_noise_and_blur_are_not_taken_for_a_turned_image() -> None:
    """A symmetric object is what is hardest to tell apart."""
    random = np.random.default_rng(0)
    x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:6j]
    truth = np.exp(-3 * (x**2 + y**2 + z**2))
    for noise in (0.0, 0.1, 1.0, 10.0):
        assert turn_fault(truth + random.normal(0, noise, truth.shape), truth) is None
    assert turn_fault(np.zeros_like(truth), truth) is None
    odd = truth * (1 + 0.9 * x)
    assert "axis 0 reversed" in (turn_fault(odd[::-1], odd) or "")
    assert "axes 0 and 1 swapped" in (turn_fault(odd.swapaxes(0, 1), odd) or "")


def test_an_error_of_one_of_many_files_names_its_folder(tmp_path: Path) -> None:
    names = ("sub-01/ct.nii.gz", "sub-02/ct.nii.gz")
    truth = write_images(tmp_path / "truth", {name: body() for name in names})
    with pytest.raises(InputError) as refusal:
        evaluate_study(StudyRequest(truths=(truth,), restored={"m": tmp_path / "none"}))
    for name in names:
        assert f"{truth / name}: nothing says whether" in str(refusal.value)


def test_values_in_another_unit_are_scored_if_forced(tmp_path: Path) -> None:
    truth = write_images(tmp_path / "truth", {"a.npy": body()})
    mine = write_images(tmp_path / "mine", {"b.npy": body() + 1024})  # without the intercept
    request = StudyRequest(truths=(truth,), restored={"m": mine}, task="ct-denoise")
    with pytest.raises(InputError, match="its values lie from"):
        evaluate_study(request)
    forced = evaluate_study(replace(request, options=RestoreOptions(force=True)))
    assert (means(forced)["m"] or 0) > 100


def test_weights_need_low_quality_images(ct_weights: Path, tmp_path: Path) -> None:
    truth = write_images(tmp_path / "truth", {"a.npy": body()})
    with pytest.raises(ConfigError, match="give low=FOLDER"):
        evaluate_study(
            StudyRequest(
                truths=(truth,), restored={"m": truth}, weights=(ct_weights,), task="ct-denoise"
            )
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"protocols": ("papre",)}, "protocol 'papre' is unknown, the nearest is 'paper'"),
        ({"measures": ("psnrr",)}, "measure 'psnrr' is unknown, the nearest is 'psnr'"),
        ({"patient": "("}, "patient '\\(' is not a pattern"),
        ({"restored": {"input": Path("x")}}, "method 'input': this name cannot be used"),
        ({"restored": {"../up": Path("x")}}, "method '../up': this name cannot be used"),
    ],
)
def test_settings_are_refused_before_anything_is_restored(
    words: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Restorer, "run", None)
    folder = ct_set(tmp_path / "set")
    with pytest.raises(ConfigError, match=message):
        evaluate_study(StudyRequest(truths=(folder,), **words))  # type: ignore[arg-type]


def test_scans_of_one_patient_count_as_one(tmp_path: Path) -> None:
    images = {f"p{p}_s{s}.npy": body(p + s) for p in range(2) for s in range(2)}
    truth = write_images(tmp_path / "truth", images)
    mine = write_images(tmp_path / "mine", {name: i + 1 for name, i in images.items()})
    request = StudyRequest(truths=(truth,), restored={"m": mine}, task="ct-denoise")
    assert {s.patients for s in evaluate_study(request).summaries} == {2}
    by_scan = evaluate_study(replace(request, patient=".+"))
    assert {s.patients for s in by_scan.summaries} == {4}


def test_an_image_without_a_truth_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = write_images(tmp_path / "truth", {"a.npy": body(), "b.npy": body()})
    mine = write_images(tmp_path / "mine", {f"{name}.npy": body() for name in "abcd"})
    evaluate_study(StudyRequest(truths=(truth,), restored={"m": mine}, task="ct-denoise"))
    assert "2 image(s) have no truth and are not scored, the first c" in caplog.text


def test_a_name_that_two_images_have_is_a_fault(tmp_path: Path) -> None:
    truth = write_images(tmp_path / "truth", {"a.npy": body(), "a.nii": body()})
    with pytest.raises(InputError, match=r"a\.nii and a\.npy are both a"):
        evaluate_study(StudyRequest(truths=(truth,), restored={"m": truth}, task="ct-denoise"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_hostile_names_are_escaped_and_still_paired(tmp_path: Path) -> None:
    """A file name may hold control characters, and bytes that are not UTF-8."""
    name = os.fsdecode(b"sc\xffan\x1b[31m\n.npy")
    truth = write_images(tmp_path / "truth", {name: body(), "other.npy": body()})
    mine = write_images(tmp_path / "mine", {name: body() + 1, "other.npy": body()})
    study = evaluate_study(StudyRequest(truths=(truth,), restored={"m": mine}, task="ct-denoise"))
    assert study.scores[-1].scan == "sc\\udcffan\\x1b[31m\\x0a"
    write_csv(study, tmp_path / "a.csv")
    write_parquet(study, tmp_path / "a.parquet")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").count("\n") == 1 + 2 * 3 * 3


def test_a_dicom_series_is_paired_by_its_folder_and_its_patient_is_not_named(
    write_series: SeriesWriter, tmp_path: Path
) -> None:
    def named(_: int, dataset: Dataset) -> None:
        dataset.PatientID = "SECRET-17"

    series = write_series(named)
    for case in ("one", "two"):
        shutil.copytree(series, tmp_path / "truth" / case)
        volume = read_volume(series)
        write_volume(volume.with_data(volume.data + 1), tmp_path / "mine" / f"{case}.nii.gz")
    request = StudyRequest(truths=(tmp_path / "truth",), restored={"m": tmp_path / "mine"})
    study = evaluate_study(request)
    assert {(score.scan, score.patient) for score in study.scores} == {
        ("one", "patient-0001"),
        ("two", "patient-0001"),
    }
    assert means(study)["m"] == pytest.approx(1, abs=0.3)  # where nothing is truncated
    single = StudyRequest(
        truths=(tmp_path / "truth" / "one",), restored={"m": tmp_path / "mine" / "two.nii.gz"}
    )
    assert {score.scan for score in evaluate_study(single).scores} == {"one"}


def test_images_of_a_set_may_be_in_any_format(tmp_path: Path) -> None:
    folder = ct_set(tmp_path / "set", "a")
    high = np.load(folder / "test" / "a-1.high.npy")
    write_images(tmp_path / "array", {"a/a-1.npy": high + 1})
    write_images(tmp_path / "nifti", {"a/a-1.nii.gz": np.moveaxis(high + 1, 0, 2)})
    restored = {name: tmp_path / name for name in ("array", "nifti")}
    study = evaluate_study(StudyRequest(truths=(folder,), restored=restored))
    assert values(study, "array") == values(study, "nifti")
    assert means(study)["array"] == pytest.approx(1, abs=1e-5)
