"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import atomic_file, atomic_folder


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
