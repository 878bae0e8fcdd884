"""Lines of .bidsignore mean what git takes them for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from restore_rwkv.batch.bidsignore import Ignored
from restore_rwkv.errors import InputError
from tests.helpers.tools import needs

FILES = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_T1w.json",
    "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
    "sub-01/ct/sub-01_ct.nii.gz",
    "sub-02/ct/sub-02_ct.nii.gz",
    "sub-02/anat/a [1].nii.gz",
    "sub-02/anat/space ",
    "#a",
    "!b",
]
LINES = [
    "",
    "# *",
    "*",
    "*.nii.gz",
    "*.nii.gz\n!*_T1w.nii.gz",
    "sub-01/\n!sub-01/anat/",
    "sub-01/*\n!sub-01/anat/",
    "sub-01",
    "/sub-01",
    "/anat",
    "anat/",
    "anat/*.json",
    "sub-01/anat/*.json",
    "**/ct",
    "**/ct/",
    "**/**/ct/",
    "sub-*/**/*.nii.gz",
    "sub-01/**",
    "sub-01/**/",
    "sub-0[2-9]",
    "sub-0[!2]",
    "sub-0[^2]",
    "sub-0?",
    "sub?01",
    "sub-01*T1w*",
    "a \\[1\\].nii.gz",
    "a [[]1].nii.gz",
    "space ",
    "space\\ ",
    "\\#a",
    "\\!b",
    "[z-a]",
    "[",
    "*_T1w.*   ",
    "*_T1w.nii.gz\r",
]


@needs("git")
@pytest.mark.parametrize("lines", LINES)
def test_the_same_files_are_ignored_as_by_git(lines: str, tmp_path: Path) -> None:
    (tmp_path / ".bidsignore").write_bytes(lines.encode() + b"\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".git/info/exclude").write_text("")
    for file in FILES:  # git looks at them to know folders
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    command = ["git", "-c", f"core.excludesFile={tmp_path}/.bidsignore", "check-ignore", "-z"]
    run = subprocess.run(
        [*command, "--no-index", "--stdin"],
        cwd=tmp_path,
        input="\0".join(FILES).encode(),
        capture_output=True,
    )
    by_git = run.stdout.decode().split("\0")[:-1]
    assert [file for file in FILES if Ignored.of(tmp_path).holds(file)] == by_git


@pytest.mark.parametrize("line", ["**/ct", "ct/", "**/ct/**", "*_ct.nii.gz", "*_ct.*", "sub-*/ct"])
def test_lines_that_name_ct_can_be_left_out(line: str, tmp_path: Path) -> None:
    (tmp_path / ".bidsignore").write_text(f"{line}\nsub-02\n")
    ct = ["sub-01/ct/sub-01_ct.nii.gz", "sub-02/ct/sub-02_ct.nii.gz"]
    assert [Ignored.of(tmp_path).holds(file) for file in ct] == [True, True]
    assert [Ignored.of(tmp_path, but="ct").holds(file) for file in ct] == [False, True]


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    assert not Ignored.of(tmp_path).holds("any")  # there is none
    (tmp_path / ".bidsignore").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        Ignored.of(tmp_path)
