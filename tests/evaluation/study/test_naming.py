from __future__ import annotations

from pathlib import Path

from restore_rwkv.evaluation.study.naming import unique_names


def test_names_have_as_many_folders_as_tell_them_apart() -> None:
    paths = [Path("/data/a/ct.nii.gz"), Path("/data/b/ct.nii.gz"), Path("/data/b/mr.nii.gz")]
    assert unique_names(paths) == ["a/ct.nii.gz", "b/ct.nii.gz", "mr.nii.gz"]


def test_one_path_that_is_given_twice_is_named_in_full(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    assert unique_names([path, path]) == [path.as_posix()] * 2
