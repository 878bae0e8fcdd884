"""Scans below trees as jobs: names, mirrored targets, shares, and what is refused at once."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.batch import FoundJob, find_jobs
from restore_rwkv.batch.find import share
from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom import files as files_room
from tests.helpers.batches import scan
from tests.helpers.dicom_folders import write_cd
from tests.helpers.source_trees import blob, save_ct
from tests.helpers.synthetic_series import make_slice, save


def series(folder: Path, number: int = 7, uid: str = "", names: str = "{}.dcm") -> Path:
    more = {"SeriesInstanceUID": uid} if uid else {}
    return save_ct(folder, blob(4, 6, 6), names=names, SeriesNumber=number, **more)


def found(*trees: Path, out: Path, **how: object) -> dict[str, FoundJob]:
    jobs = list(find_jobs(trees, out, **how))  # type: ignore[arg-type]
    assert len({one.job.key for one in jobs}) == len(jobs)
    assert len({one.job.target for one in jobs}) == len(jobs)
    return {one.job.name: one for one in jobs}


def targets(*trees: Path, out: Path, **how: object) -> dict[str, str]:
    """Target below the output, of each scan by its name; a series ends in a slash."""
    return {
        name: os.path.relpath(one.job.target, out) + "/" * one.job.is_series
        for name, one in found(*trees, out=out, **how).items()
    }


def test_outputs_mirror_the_tree(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    for name in ("t1.nii.gz", "p1/t1.nii", "p1/b/t1.mgz", "p1/t2.nrrd", "p2/x.png", "p2/y.npy"):
        scan(tree / "p.nii.gz").rename(
            (tree / name).parent.mkdir(exist_ok=True, parents=True) or tree / name
        )
    np.save(tree / "p2" / "y.npy", np.zeros((4, 4, 4)))
    same = {name: name for name in ("t1.nii.gz", "p1/t1.nii", "p1/b/t1.mgz", "p1/t2.nrrd")}
    assert targets(tree, out=out) == same | {"p2/x.png": "p2/x.png", "p2/y.npy": "p2/y.npy"}
    nifti = targets(tree, out=out, format="nifti")
    assert nifti["p1/b/t1.mgz"] == "p1/b/t1.nii.gz"
    assert nifti["p1/t1.nii"] == "p1/t1.nii.gz"
    job = found(tree, out=out)["p1/t1.nii"].job
    assert job.source == str(tree / "p1" / "t1.nii")
    assert (job.series, job.files, job.is_series) == (None, (), False)
    assert job.size == (tree / "p1" / "t1.nii").stat().st_size


def test_suffixes_keep_their_case_and_headers_become_one_file(tmp_path: Path) -> None:
    for name in ("A.NII.GZ", "b.hdr", "c.mhd", "d.nhdr"):
        scan(tmp_path / "p.nii").rename(tmp_path / name)
    assert targets(tmp_path, out=tmp_path / "out") == {
        "A.NII.GZ": "A.NII.GZ",
        "b.hdr": "b.nii.gz",
        "c.mhd": "c.mha",
        "d.nhdr": "d.nrrd",
    }


def test_scans_of_one_stem_get_records_of_their_own(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "A.nii"):
        scan(tmp_path / "p.nii").rename(tmp_path / name)
    assert targets(tmp_path, out=tmp_path / "out") == {
        "A.nii": "A.nii",
        "a.nii": "a.nii",
        "a.nii.gz": "a-2.nii.gz",
        "a.nrrd": "a-3.nrrd",
    }


HOSTILE = [
    "with spaces.nii",
    "-o.nii",
    "--force.nii",
    "[red]x[bold].nii",
    "new\nline.nii",
    "tab\t.nii",
    "Gehirn-µ-脳.nii",
    "*?[a].nii",
    "%s{}.nii",
    "'quo\"ted'.nii",
    "back\\slash.nii",
    "e\u0301.nii",
    "é.nii",
    "x" * 246 + ".nii",
]


def test_hostile_names_are_kept(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    whole = scan(tmp_path / "p.nii").read_bytes()
    tree.mkdir()
    for name in HOSTILE:
        (tree / name).write_bytes(whole)
    raw = os.fsencode(tree) + b"/latin\xe9.nii"
    with open(raw, "wb") as file:
        file.write(whole)
    names = {*HOSTILE, os.fsdecode(b"latin\xe9.nii")}
    assert targets(tree, out=tmp_path / "out") == {name: name for name in names}


def test_a_series_alone_is_named_as_its_folder(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    series(tree / "study" / "thorax.v2", 3)
    assert targets(tree, out=out) == {"study/thorax.v2: series 3": "study/thorax.v2/"}
    assert targets(tree, out=out, format="nifti") == {
        "study/thorax.v2: series 3": "study/thorax.v2.nii.gz"
    }
    assert targets(tree / "study" / "thorax.v2", out=out) == {"thorax.v2: series 3": "thorax.v2/"}
    job = found(tree, out=out)["study/thorax.v2: series 3"].job
    assert job.source == str(tree / "study" / "thorax.v2")
    assert sorted(job.files) == ["0000.dcm", "0001.dcm", "0002.dcm", "0003.dcm"]
    assert job.size == sum(file.stat().st_size for file in (tree / "study" / "thorax.v2").iterdir())


def test_several_series_of_a_folder_are_told_by_their_numbers(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    series(tree / "s", 3, names="a{}")
    series(tree / "s", 4, names="b{}")
    series(tree / "s", 4, names="c{}")
    jobs = list(find_jobs([tree], out))
    assert sorted(os.path.relpath(one.job.target, out) for one in jobs) == [
        "s/series-3",
        "s/series-4",
        "s/series-4-2",
    ]


def test_a_series_beside_other_scans_never_holds_their_outputs(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    series(tree / "s", 3)
    series(tree / "s" / "deeper", 4)
    scan(tree / "r" / "x.nii")
    series(tree / "r", 5)
    assert targets(tree, out=out) == {
        "s: series 3": "s/series-3/",
        "s/deeper: series 4": "s/deeper/",
        "r: series 5": "r/series-5/",
        "r/x.nii": "r/x.nii",
    }


def test_a_series_of_several_folders_is_one(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    series(tree / "s", 3)
    for number, file in enumerate(sorted((tree / "s").iterdir())):
        folder = tree / "s" / f"part{number % 2}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    assert targets(tree, out=out) == {"s: series 3": "s/"}
    job = found(tree, out=out)["s: series 3"].job
    assert job.source == str(tree / "s")
    assert {name.partition("/")[0] for name in job.files} == {"part0", "part1"}
    series(tree / "s" / "part0", 4, names="other{}")
    assert targets(tree, out=out) == {
        "s: series 3": "s/series-3/",
        "s/part0: series 4": "s/part0/",
    }


def test_an_archive_stands_for_a_folder(tmp_path: Path) -> None:
    folder, out = series(tmp_path / "s", 3), tmp_path / "out"
    with zipfile.ZipFile(tmp_path / "scan.v1.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    assert targets(tmp_path / "scan.v1.zip", out=out) == {"scan.v1.zip: series 3": "scan.v1/"}
    job = found(tmp_path / "scan.v1.zip", out=out)["scan.v1.zip: series 3"].job
    assert (job.source, job.files) == (str(tmp_path / "scan.v1.zip"), ())
    assert job.size == (tmp_path / "scan.v1.zip").stat().st_size


def test_archives_in_a_tree_are_found_beside_what_was_unpacked_from_them(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    folder = series(tree / "knee", 3)
    for name in ("knee.zip", "deep/Head.ZIP"):
        (tree / name).parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(tree / name, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"x/{file.name}")
    (tree / "cut.zip").write_bytes((tree / "knee.zip").read_bytes()[:2000])
    with zipfile.ZipFile(tree / "texts.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    jobs = found(tree, out=out)
    assert {name: one.job.target for name, one in jobs.items()} == {
        "knee: series 3": str(out / "knee/series-3"),
        "deep/Head.ZIP: series 3": str(out / "deep/Head"),
        "knee.zip: series 3": str(out / "knee/series-3-2"),
        "cut.zip": str(out / "cut.nii.gz"),
    }
    assert {name for name, one in jobs.items() if one.fault} == {"cut.zip"}
    assert jobs["cut.zip"].fault.startswith("cut.zip: the archive is damaged")
    assert jobs["knee.zip: series 3"].job.source == str(tree / "knee.zip")


def test_what_git_annex_keeps_in_hidden_folders_is_found_by_its_links(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree, objects = tmp_path / "tree", tmp_path / "tree" / ".git" / "annex" / "objects"
    series(tree / "s1", 3)
    objects.mkdir(parents=True)
    for number, file in enumerate(sorted((tree / "s1").iterdir())):
        file.rename(objects / f"SHA256E-{number}.dcm")
        file.symlink_to(os.path.relpath(objects / f"SHA256E-{number}.dcm", file.parent))
    (tree / "s1" / "absent.dcm").symlink_to("../.git/annex/objects/absent.dcm")
    series(tmp_path / "other", 4)
    (tree / "linked").symlink_to(tmp_path / "other")
    (tree / "notes.txt").symlink_to(tmp_path / "absent.txt")
    jobs = found(tree, out=tmp_path / "out")
    assert {name: len(one.job.files) for name, one in jobs.items()} == {"s1: series 3": number + 1}
    assert jobs["s1: series 3"].job.target == str(tmp_path / "out" / "s1")
    said = f"did not follow 2 symbolic link(s) that lead out of it or nowhere, the first {tree}"
    assert said in caplog.text


@pytest.mark.parametrize(
    "name",
    ["overview.html", "Overview-2.html", "manifest.sqlite", "manifest-1-of-2.sqlite-journal"],
)
def test_no_output_has_the_name_of_the_batchs_own_files(tmp_path: Path, name: str) -> None:
    tree = tmp_path / "tree"
    series(tree / name, 3)
    scan(tree / "overview" / name / "fine.nii")
    scan(tree / "overview.html.nii")
    jobs = found(tree, out=tmp_path / "out")
    fault = jobs.pop(f"{name}: series 3").fault
    assert f"its output would have the name of the batch's own {name}; rename it" in fault
    assert {one.fault for one in jobs.values()} == {""}
    assert len(jobs) == 2


def test_an_exported_cd_is_searched_by_its_directory(tmp_path: Path) -> None:
    parts = {uid: [make_slice(k) for k in range(3)] for uid in ("1.2.8", "1.2.9")}
    for number, slices in enumerate(parts.values()):
        for one in slices:
            one.SeriesNumber = number
    cd = write_cd(tmp_path / "cd", parts)
    by_tree = found(cd, out=tmp_path / "out")
    by_name = found(cd / "DICOMDIR", out=tmp_path / "out")
    assert len(by_tree) == len(by_name) == 2
    assert {one.job.series for one in by_tree.values()} == {"1.2.8", "1.2.9"}
    assert [one.job.files for one in by_tree.values()] == [
        one.job.files for one in by_name.values()
    ]


def test_damaged_files_are_found_with_their_fault(tmp_path: Path) -> None:
    damaged = tmp_path / "tree" / "damaged.dcm"
    scan(tmp_path / "tree" / "fine.nii")
    damaged.write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL" + b"\xff" * 40)
    jobs = found(tmp_path / "tree", out=tmp_path / "out")
    assert "damaged" in jobs["damaged.dcm"].fault
    assert jobs["fine.nii"].fault == ""


def test_files_that_may_not_be_read_are_found_once_with_their_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    closed = {scan(tree / name) for name in ("closed.nii.gz", "closed.nii")}
    (tree / "closed.zip").write_bytes(b"PK")
    closed.add(tree / "closed.zip")
    scan(tree / "fine.nii")
    read, may = files_room.first_bytes, os.access

    def first_bytes(path: Path) -> bytes:
        if path in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(files_room, "first_bytes", first_bytes)
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and may(path, mode))
    jobs = found(tree, out=tmp_path / "out")
    assert {name for name, one in jobs.items() if one.fault} == {file.name for file in closed}
    assert len(jobs) == 4


def test_dicom_with_the_suffix_of_another_format_is_one_scan(tmp_path: Path) -> None:
    series(tmp_path / "tree", 3, names="{}.nii")
    assert set(found(tmp_path / "tree", out=tmp_path / "out")) == {"tree: series 3"}


@pytest.mark.filterwarnings("ignore:(The value length|Invalid value)")
def test_a_number_of_a_series_that_is_not_one_leads_nowhere_else(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    scan(tree / "s" / "fine.nii")
    evil = b"../../../../../evil"
    save(make_slice(0), tree / "s" / "0.dcm")
    path = tree / "s" / "0.dcm"
    before, after = path.read_bytes().split(b"\x20\x00\x11\x00IS\x02\x007 ")
    path.write_bytes(
        before + b"\x20\x00\x11\x00IS" + bytes([len(evil) + 1, 0]) + evil + b" " + after
    )
    jobs = found(tree, out=out)
    assert len(jobs) == 2
    assert os.path.relpath(jobs[f"s: series {evil.decode()}"].job.target, out) == "s/series-x"


def test_several_trees_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = scan(tmp_path / "a" / "data" / "x.nii"), scan(tmp_path / "b" / "data" / "x.nii")
    third = scan(tmp_path / "data-2" / "x.nii")
    out = tmp_path / "out"
    trees = [first.parent, second.parent, third.parent]
    forth = {one.job.source: one.job.target for one in found(*trees, out=out).values()}
    back = {one.job.source: one.job.target for one in found(*trees[::-1], out=out).values()}
    assert forth == back
    assert [os.path.relpath(forth[str(path)], out) for path in (first, second, third)] == [
        "data/x.nii",
        "data-2/x.nii",
        "data-2-2/x.nii",
    ]


def test_files_count_as_those_of_their_folder(tmp_path: Path) -> None:
    one, two = scan(tmp_path / "in" / "x.nii"), scan(tmp_path / "in" / "y.nii")
    assert targets(one, two, out=tmp_path / "out") == {"x.nii": "x.nii", "y.nii": "y.nii"}
    other = scan(tmp_path / "more" / "x.nii")
    assert targets(one, other, out=tmp_path / "out") == {
        "in/x.nii": "in/x.nii",
        "more/x.nii": "more/x.nii",
    }


def test_what_is_given_twice_is_refused(tmp_path: Path) -> None:
    one = scan(tmp_path / "in" / "p" / "x.nii")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    out = tmp_path / "out"
    for trees in ((tmp_path / "in",) * 2, (one, one), (tmp_path / "in", tmp_path / "link")):
        with pytest.raises(InputError, match="is given 2 times; give it once"):
            list(find_jobs(trees, out))
    for inner in (one, one.parent):
        with pytest.raises(InputError, match=r"lies in .*in, which is given too; leave it out"):
            list(find_jobs([tmp_path / "in", inner], out))
    with pytest.raises(InputError, match="no such file"):
        list(find_jobs([tmp_path / "nowhere"], out))


def test_a_series_in_parts_is_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", 3)
    first, second = sorted(folder.iterdir())[:2]
    with pytest.raises(InputError, match="a series of it is given in parts; give it whole"):
        list(find_jobs([first, second], tmp_path / "out"))


def test_outputs_in_the_tree_are_not_inputs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    scan(tree / "x.nii")
    for out in (tree / "out", tree / "deep" / "out"):
        scan(out / "old.nii")
        series(out / "old", 3)
        assert list(targets(tree, out=out)) == ["x.nii"]
        shutil.rmtree(out)
    scan(tree / "out" / "old.nii")
    (tmp_path / "link").symlink_to(tree)
    assert list(targets(tree, out=tmp_path / "link" / "out")) == ["x.nii"]
    assert list(targets(tmp_path / "link", out=tree / "out")) == ["x.nii"]


def test_a_tree_in_the_output_is_refused(tmp_path: Path) -> None:
    tree = scan(tmp_path / "tree" / "x.nii").parent
    for out in (tree, tmp_path):
        with pytest.raises(InputError, match="the folder of the outputs; name another one for"):
            list(find_jobs([tree], out))


def test_links_are_not_followed_in_circles(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    scan(tree / "x.nii")
    series(tree / "s", 3)
    (tree / "s" / "loop").symlink_to(tree)
    (tree / "loop.nii").symlink_to("loop.nii")
    (tree / "gone.nii").symlink_to("nowhere.nii")
    (tree / "again.nii").symlink_to("x.nii")
    jobs = found(tree, out=tmp_path / "out")
    assert "s: series 3" in jobs
    assert len({"x.nii", "again.nii"} & set(jobs)) == 1
    assert len(jobs) <= 4


def test_an_empty_tree_has_no_jobs(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "notes.txt").write_text("no scan")
    assert found(tmp_path / "tree", out=tmp_path / "out") == {}


def test_the_voxels_beside_a_header_belong_to_it(tmp_path: Path) -> None:
    (tmp_path / "x.hdr").write_bytes(bytes(348))
    (tmp_path / "x.img").write_bytes(bytes(100))
    (tmp_path / "y.raw.gz").write_bytes(bytes(100))
    (one,) = found(tmp_path, out=tmp_path / "out").values()
    assert one.job.size == 448
    os.utime(tmp_path / "x.img", ns=(1, 2**61))
    (later,) = found(tmp_path, out=tmp_path / "out").values()
    assert later.modified == 2**61


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_shares_are_disjoint_complete_and_the_same_twice(tmp_path: Path, parts: int) -> None:
    whole = scan(tmp_path / "p.nii").read_bytes()
    for number in range(20):
        path = tmp_path / "tree" / f"{number % 4}" / f"{number}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)

    def shares(tree: Path) -> list[list[str]]:
        return [
            [one.job.key for one in share(find_jobs([tree], tmp_path / "out"), part, parts)]
            for part in range(1, parts + 1)
        ]

    once = shares(tmp_path / "tree")
    assert sum(map(len, once)) == len({key for keys in once for key in keys}) == 20
    shutil.copytree(tmp_path / "tree", tmp_path / "elsewhere")
    assert shares(tmp_path / "elsewhere") == once
