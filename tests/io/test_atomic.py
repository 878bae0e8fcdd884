"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import atomic_file, atomic_files, atomic_folder, claimed
from restore_rwkv.io.atomic import atomic_series


def test_file_appears_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "scan.nii.gz"
    with atomic_file(final) as temporary:
        temporary.write_bytes(b"new")
        assert not final.exists()
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
    assert final.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [final]


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "figures.csv"
    final.write_text("old")

    def fail() -> None:
        with atomic_file(final) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_are_those_of_a_plain_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_file(tmp_path / "atomic") as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_name_without_suffix(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "LICENSE") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "LICENSE").read_text() == "x"


def test_killed_process_leaves_no_half_file(tmp_path: Path) -> None:
    final = tmp_path / "out.nii"
    program = (
        "import os, sys\n"
        "from restore_rwkv.io.atomic import atomic_file\n"
        "with atomic_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(final)], check=False)
    assert done.returncode != 0
    assert not final.exists()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".out-")
    assert leftover.read_bytes() == b"half"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_writer_that_replaces_the_file_does_not_make_it_private(tmp_path: Path) -> None:
    """As safetensors does."""
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_file(tmp_path / "atomic") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_a_full_disk_is_told_with_the_final_name(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_file(tmp_path / "out.nii"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"out\.nii"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_folder_appears_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "new" / "scans"
    with atomic_folder(final) as temporary:
        (temporary / "train").mkdir()
        (temporary / "train" / "a.nii").write_bytes(b"a")
        assert not final.exists()
        assert temporary.parent == final.parent
        assert temporary.name.startswith(".scans-")
    assert (final / "train" / "a.nii").read_bytes() == b"a"
    assert list(final.parent.iterdir()) == [final]


def test_a_folder_is_removed_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "scans") as temporary:
            (temporary / "a.nii").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_before_the_block(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match=r"scans: exists already; name another folder"):
        atomic_folder(tmp_path / "scans")
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_killed_process_leaves_no_half_folder(tmp_path: Path) -> None:
    final = tmp_path / "scans"
    program = (
        "import os, sys\n"
        "from restore_rwkv.io.atomic import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as temporary:\n"
        "    (temporary / 'a.nii').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(final)], check=False)
    assert done.returncode != 0
    assert not final.exists()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.endswith(".partial")


def write_both(image: Path, record: Path, *, overwrite: bool) -> None:
    with atomic_files(image, record, overwrite=overwrite) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    image, record = tmp_path / "scan.nii.gz", tmp_path / "scan.restoration.json"
    with atomic_files(image, record, overwrite=False) as (first, second):
        first.write_text("image")
        second.write_text("record")
        assert not image.exists()
        assert not record.exists()
    assert (image.read_text(), record.read_text()) == ("image", "record")
    assert sorted(tmp_path.iterdir()) == [image, record]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("existing", [False, True])
def test_a_rename_that_fails_undoes_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, existing: bool
) -> None:
    image, record = tmp_path / "scan.nii.gz", tmp_path / "scan.restoration.json"
    if existing and overwrite:
        image.write_text("old image")
        record.write_text("old record")
    before = {path: path.read_text() for path in tmp_path.iterdir()}

    def fail_for_the_image(function: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Path, target: Path) -> None:
            if Path(target) == image:
                raise OSError(errno.ENOSPC, "No space left on device")
            function(source, target)

        return rename

    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, fail_for_the_image(getattr(os, name)))
    with pytest.raises(OSError, match="No space left") as raised:
        write_both(image, record, overwrite=overwrite)
    assert raised.value.filename == str(image)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_file_that_appears_in_the_meantime_is_kept(tmp_path: Path) -> None:
    image, record = tmp_path / "scan.nii.gz", tmp_path / "scan.restoration.json"

    def write_while_another_does() -> None:
        with atomic_files(image, record, overwrite=False) as (first, _):
            first.write_text("new")
            image.write_text("of another program")

    with pytest.raises(InputError, match="exists already"):
        write_while_another_does()
    assert image.read_text() == "of another program"
    assert list(tmp_path.iterdir()) == [image]


def test_without_hard_links_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    image, record = tmp_path / "scan.nii.gz", tmp_path / "scan.restoration.json"
    for overwrite in (False, True):
        write_both(image, record, overwrite=overwrite)
        assert (image.read_text(), record.read_text()) == ("new", "new")
    with pytest.raises(InputError, match="exists already"):
        write_both(image, record, overwrite=False)
    assert sorted(tmp_path.iterdir()) == [image, record]


CLAIM = """
import sys, time
from restore_rwkv.io import atomic_file, claimed
with claimed(sys.argv[1]), atomic_file(sys.argv[1]):
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_an_output_and_a_killed_one_leaves_it_free(
    tmp_path: Path,
) -> None:
    output = tmp_path / "new" / "folder" / "scan[1].nii.gz"
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(output)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match="another process is writing it"), claimed(output):
            pass
        other.kill()
    assert any(".partial" in path.name for path in output.parent.iterdir())
    with claimed(output):
        assert not any(".partial" in path.name for path in output.parent.iterdir())
    with claimed(tmp_path / "another" / "folder" / "scan.nii"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]  # nothing came into the other one


def test_a_claim_keeps_the_folder_of_what_was_written(tmp_path: Path) -> None:
    output = tmp_path / "new" / "scan.nii"
    with claimed(output), atomic_file(output) as temporary:
        temporary.write_text("x")
    assert list(output.parent.iterdir()) == [output]


def test_a_folder_and_its_files_appear_together(tmp_path: Path) -> None:
    folder, record = tmp_path / "ct.v2", tmp_path / "ct.v2.restoration.json"
    page = tmp_path / "ct.v2.fidelity.html"
    with atomic_series(folder, record, page) as (inside, text, other):
        (inside / "a.dcm").write_text("a")
        text.write_text("record")
        other.write_text("page")
        assert not any(path.exists() for path in (folder, record, page))
    assert sorted(tmp_path.iterdir()) == [folder, page, record]
    assert page.read_text() == "page"


def test_a_folder_that_cannot_be_renamed_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    def write() -> None:
        files = (tmp_path / "ct.restoration.json", tmp_path / "ct.fidelity.html")
        with atomic_series(tmp_path / "ct", *files) as (inside, *_):
            (inside / "a.dcm").write_text("a")
            monkeypatch.setattr(os, "replace", fail)

    with pytest.raises(OSError, match="Permission denied"):
        write()
    assert list(tmp_path.iterdir()) == []
