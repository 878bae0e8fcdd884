"""The on-disk form: what is written is read back, mapped, and nothing half or leaking."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from restore_rwkv.data import PreparedSet, SetWriter, find_sets
from restore_rwkv.data.prepared import MANIFEST
from restore_rwkv.data.sources.jobs import check_sets
from restore_rwkv.data.stack import Count, Split
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.physics.mri.resolution import kspace_crop
from restore_rwkv.tasks import ScalingRule, robust_scaling
from tests.helpers.source_trees import blob, files_below


def write_set(folder: Path, task: str = "ct-denoise") -> PreparedSet:
    with SetWriter(folder, "mine", task) as writer:
        for i, split in enumerate(("train", "validation", "test")):
            high = blob(3, 8, 10, seed=i)
            low = None if task == "mri-sr" else high + 0.5
            writer.add(f"scan{i}", f"p{i}", split, high, low, spacing=(3.0, 0.5, 0.7))
        writer.record["left_out"] = {"scan9": "broken"}
    return PreparedSet.read(folder)


def test_what_is_written_is_read_back(tmp_path):
    prepared = write_set(tmp_path / "set")
    assert files_below(tmp_path / "set") == [
        "manifest.json",
        *("test", "test/scan2.high.npy", "test/scan2.low.npy"),
        *("train", "train/scan0.high.npy", "train/scan0.low.npy"),
        *("validation", "validation/scan1.high.npy", "validation/scan1.low.npy"),
    ]
    (stack,) = prepared.split("test")
    assert (stack.patient, stack.shape, stack.spacing) == ("p2", (3, 8, 10), (3.0, 0.5, 0.7))
    assert (prepared.dataset, prepared.task_name, prepared.factor) == ("mine", "ct-denoise", 4.0)
    assert prepared.record == {"left_out": {"scan9": "broken"}}
    assert prepared.counts() == dict.fromkeys(("train", "validation", "test"), Count(1, 1, 3))
    np.testing.assert_array_equal(prepared.images(stack, "high"), blob(3, 8, 10, seed=2))
    np.testing.assert_array_equal(prepared.images(stack, "low"), blob(3, 8, 10, seed=2) + 0.5)


def test_images_are_mapped_and_whole_numbers_take_two_bytes(tmp_path):
    prepared = write_set(tmp_path / "set")
    stack = prepared.stacks[0]
    high, low = prepared.images(stack, "high"), prepared.images(stack, "low")
    assert isinstance(high, np.memmap)
    assert isinstance(low, np.memmap)
    assert not high.flags.writeable
    assert (high.dtype, low.dtype) == (np.int16, np.float32)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    images=hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "|u1", "<u2", ">i2", "<i4"]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
        elements={"min_value": 0, "max_value": 255},
    )
)
def test_values_of_any_type_and_order_come_back(tmp_path, images):
    folder = tmp_path / f"set{time.monotonic_ns()}"
    view = images[:, ::-1].transpose(0, 2, 1)
    with SetWriter(folder, "mine", "ct-denoise") as writer:
        writer.add("a", "a", "train", view, view)
    prepared = PreparedSet.read(folder)
    stored = prepared.images(prepared.stacks[0], "high")
    np.testing.assert_array_equal(stored, view.astype(np.float32))
    whole = np.array_equal(view, np.rint(view))
    assert stored.dtype == (np.int16 if whole else np.float32)


@pytest.mark.parametrize("value", [-32768, 32767, -32769, 32768, 0.25])
def test_int16_ends_where_it_ends(tmp_path, value):
    images = np.full((1, 2, 2), value, np.float64)
    with SetWriter(tmp_path / "set", "mine", "ct-denoise") as writer:
        writer.add("a", "a", "train", images, images)
    prepared = PreparedSet.read(tmp_path / "set")
    stored = prepared.images(prepared.stacks[0], "high")
    np.testing.assert_array_equal(stored, images)
    assert stored.dtype == (np.int16 if value in (-32768, 32767) else np.float32)


def test_scaling_is_that_of_the_low_quality_images(tmp_path):
    prepared = write_set(tmp_path / "set", "mri-sr")
    import torch

    high = torch.from_numpy(blob(3, 8, 10, seed=0)).float()
    low = torch.stack([kspace_crop(image, 4) for image in high]).numpy()
    scaling = prepared.stacks[0].scaling(ScalingRule("robust"))
    assert scaling.scale == pytest.approx(robust_scaling(low).scale, rel=1e-6)
    fixed = prepared.stacks[0].scaling(ScalingRule("fixed", 5.0, 2.0))
    assert (fixed.offset, fixed.scale) == (5.0, 2.0)
    with pytest.raises(InputError, match="has no low quality"):
        prepared.images(prepared.stacks[0], "low")


def test_verify_finds_every_flipped_byte(tmp_path):
    prepared = write_set(tmp_path / "set")
    done = []
    prepared.verify(lambda *progress: done.append(progress))
    assert done == [(1, 3), (2, 3), (3, 3)]
    for name in ("train/scan0.low.npy", "test/scan2.high.npy"):
        path = tmp_path / "set" / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    PreparedSet.read(tmp_path / "set")  # shapes are as they were
    with pytest.raises(InputError, match=r"train/scan0\.low\.npy, test/scan2\.high\.npy: not what"):
        prepared.verify()


def test_reading_finds_missing_and_cut_files(tmp_path):
    write_set(tmp_path / "set")
    path = tmp_path / "set/train/scan0.low.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"scan0\.low\.npy: cannot be read"):
        PreparedSet.read(tmp_path / "set")
    np.save(path, np.zeros((1, 2, 3)))
    with pytest.raises(InputError, match=r"scan0\.low\.npy: holds float64 \(1, 2, 3\)"):
        PreparedSet.read(tmp_path / "set")
    path.unlink()
    with pytest.raises(InputError, match=r"scan0\.low\.npy: missing"):
        PreparedSet.read(tmp_path / "set")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "restore-rwkv data 9"}, "this release reads"),
        ({"task": "x-ray"}, "task 'x-ray' is unknown"),
        ({"stacks": [{"name": "a"}]}, "damaged"),
        ({"stacks": 3}, "damaged"),
        ({"factor": 0}, "factor is 0"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path, change, message):
    write_set(tmp_path / "set")
    path = tmp_path / "set" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        PreparedSet.read(tmp_path / "set")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("patient", "p1", r"more than one split: p1 \(train, validation\)"),
        ("split", "dev", "damaged"),
        ("name", "scan1", "two stacks have the same name"),
        ("shape", [3, 8], "damaged"),
        ("robust_scale", 0.0, "damaged"),
        ("files", {"high": "../outside.npy"}, "damaged"),
        ("files", {"high": 5, "low": "train/scan0.low.npy"}, "damaged"),
        ("files", ["high", "low"], "damaged"),
        ("files", {"high": "a\0b", "low": "train/scan0.low.npy"}, "damaged"),
        ("patient", ["p0"], "damaged"),
        ("files", {"high": "../outside.npy", "low": "train/scan0.low.npy"}, "lies outside"),
    ],
)
def test_damaged_stacks_are_refused(tmp_path, key, value, message):
    write_set(tmp_path / "set")
    path = tmp_path / "set" / MANIFEST
    record = json.loads(path.read_text())
    record["stacks"][0][key] = value
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        PreparedSet.read(tmp_path / "set")


def share(writer: SetWriter, splits: tuple[Split, ...]) -> None:
    """Slices of one patient in several splits, as a stated exception."""
    for split in splits:
        writer.add(split, "p0", split, blob(3, 8, 10), blob(3, 8, 10))
    writer.record["shared_patients"] = {"p0": "slices of one scan: train 0-2, validation 6-8"}


def test_a_patient_in_training_and_validation_is_an_exception_that_is_stated(tmp_path):
    with SetWriter(tmp_path / "set", "mine", "ct-denoise") as writer:
        share(writer, ("train", "validation"))
    assert PreparedSet.read(tmp_path / "set").shared_patients == ("p0",)
    assert len(find_sets([tmp_path], ("ct-denoise",))) == 1
    path = tmp_path / "set" / MANIFEST
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"record": {}}))
    with pytest.raises(InputError, match=r"more than one split: p0 \(train, validation\)"):
        PreparedSet.read(tmp_path / "set")
    path.write_text(json.dumps(content | {"record": {"shared_patients": 3}}))
    with pytest.raises(InputError, match="damaged"):
        PreparedSet.read(tmp_path / "set")


@pytest.mark.parametrize("other", ["train", "validation"])
def test_a_test_patient_is_never_shared(tmp_path, other):
    with (
        pytest.raises(InputError, match=rf"p0 \(test, {other}\)|p0 \({other}, test\)"),
        SetWriter(tmp_path / "set", "mine", "ct-denoise") as writer,
    ):
        share(writer, ("test", other))


def test_an_archive_in_place_of_an_array_is_refused(tmp_path):
    write_set(tmp_path / "set")
    with (tmp_path / "set/train/scan0.high.npy").open("wb") as file:
        np.savez(file, images=np.zeros(3))
    with pytest.raises(InputError, match=r"scan0\.high\.npy: cannot be read"):
        PreparedSet.read(tmp_path / "set")


def test_only_mri_can_do_without_low_quality(tmp_path):
    """Else training would take CT for MRI, and crop its k-space."""
    write_set(tmp_path / "set", "mri-sr")
    path = tmp_path / "set" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": "ct-denoise"}))
    with pytest.raises(InputError, match="scan0 has no low quality, which ct-denoise needs"):
        PreparedSet.read(tmp_path / "set")


def test_a_set_appears_whole_or_not_at_all(tmp_path):
    def prepare():
        with SetWriter(tmp_path / "set", "m", "mri-sr") as writer:
            writer.add("a", "a", "train", blob(2, 8, 8))
            assert len(files_below(tmp_path)) == 3  # a hidden folder
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepare()
    assert files_below(tmp_path) == []


@pytest.mark.slow
def test_a_killed_preparation_leaves_no_set(tmp_path):
    program = (
        "import numpy as np, sys, time\n"
        "from restore_rwkv.data import SetWriter\n"
        f"with SetWriter({str(tmp_path / 'set')!r}, 'm', 'mri-sr') as writer:\n"
        "    writer.add('a', 'a', 'train', np.ones((2, 8, 8)))\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "set").exists()
    assert all(name.startswith(".set-") for name in files_below(tmp_path))
    with pytest.raises(InputError, match="no prepared set"):
        PreparedSet.read(tmp_path / "set")
    with pytest.raises(InputError, match="no prepared set"):
        find_sets([tmp_path], ("mri-sr",))
    write_set(tmp_path / "set")  # and is no obstacle


def test_patients_in_two_splits_are_refused(tmp_path):
    def prepare():
        with SetWriter(tmp_path / "set", "m", "mri-sr") as writer:
            writer.add("a", "someone", "train", blob(2, 8, 8))
            writer.add("b", "someone", "test", blob(2, 8, 8))

    with pytest.raises(InputError, match=r"someone \(test, train\)"):
        prepare()
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../a"}, "not a valid name of a stack"),
        ({"name": "FIRST"}, "exists already"),
        ({"split": "dev"}, "split is 'dev'"),
        ({"low": np.zeros((2, 8, 7))}, "give equal"),
        ({"low": None}, "ct-denoise needs pairs"),
        ({"high": np.zeros((8, 8)), "low": np.zeros((8, 8))}, "give equal"),
        ({"low": np.full((2, 8, 8), np.nan)}, "low has voxels that are not finite"),
        ({"high": np.zeros((2, 8, 8), complex)}, "complex128; give real numbers"),
    ],
)
def test_stacks_that_do_not_fit_are_refused(tmp_path, changes, message):
    given = {"name": "a", "patient": "a", "split": "train"}
    given |= {"high": blob(2, 8, 8), "low": blob(2, 8, 8)} | changes
    with SetWriter(tmp_path / "set", "m", "ct-denoise") as writer:
        writer.add("first", "b", "train", blob(2, 8, 8), blob(2, 8, 8))
        with pytest.raises(InputError, match=message):
            writer.add(**given)
    assert len(PreparedSet.read(tmp_path / "set").stacks) == 1


def test_sets_without_a_use_and_taken_names_are_refused(tmp_path):
    nothing = SetWriter(tmp_path / "set", "m", "mri-sr")
    with pytest.raises(ConfigError, match="no volume for training or test"), nothing:
        pass
    write_set(tmp_path / "set")
    with pytest.raises(InputError, match="exists already"):
        SetWriter(tmp_path / "set", "m", "mri-sr")


def test_sets_are_found_by_task(tmp_path):
    write_set(tmp_path / "a/ct")
    write_set(tmp_path / "a/mri", "mri-sr")
    found = find_sets([tmp_path / "a"], ("mri-sr", "ct-denoise"))
    assert [one.task_name for one in found] == ["ct-denoise", "mri-sr"]
    assert [one.folder.name for one in find_sets([tmp_path / "a"], ("mri-sr",))] == ["mri"]
    with pytest.raises(InputError, match="no set for pet-synth"):
        find_sets([tmp_path / "a"], ("pet-synth",))


def test_a_set_counts_once(tmp_path):
    write_set(tmp_path / "a/ct")
    with pytest.raises(InputError, match="given twice"):
        find_sets([tmp_path / "a", tmp_path / "a/ct"], ("ct-denoise",))


def test_sets_together_keep_each_patient_in_one_split(tmp_path):
    write_set(tmp_path / "a")
    with SetWriter(tmp_path / "b", "other", "ct-denoise") as writer:
        writer.add("scan", "p2", "train", blob(2, 8, 8), blob(2, 8, 8))
    with pytest.raises(InputError, match=r"p2 \(test, train\)"):
        find_sets([tmp_path / "a", tmp_path / "b"], ("ct-denoise",))
    with SetWriter(tmp_path / "c", "folder", "ct-denoise") as writer:
        writer.add("scan", "p2", "train", blob(2, 8, 8), blob(2, 8, 8))
    assert len(find_sets([tmp_path / "a", tmp_path / "c"], ("ct-denoise",))) == 2


def test_sets_are_checked(tmp_path):
    write_set(tmp_path / "a/one")
    write_set(tmp_path / "a/two", "mri-sr")
    report = check_sets(tmp_path / "a")
    assert [one.folder.name for one in report.sets] == ["one", "two"]
    assert report.left_out == {"scan9": "broken"}
    path = tmp_path / "a/two/train/scan0.high.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    with pytest.raises(InputError, match=r"two: train/scan0\.high\.npy: not what was prepared"):
        check_sets(tmp_path / "a")
    with pytest.raises(InputError, match="no prepared set"):
        check_sets(tmp_path)
