"""The command line on a corpus of bad and odd inputs: what is right happens, and nothing else."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.odd_files import all_cases
from tests.helpers.odd_files.case import Case
from tests.helpers.odd_files.of_packages import package_cases
from tests.helpers.odd_files.running import Ended, Runner, judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and /proc tell the memory")

# One of each family also runs without the slow ones.
QUICK = (
    "NIfTI bytes: a sound file",
    "NIfTI bytes: half of the gzip",
    "NIfTI bytes: claims of 65 TB",
    "NIfTI header: sform of NaN",
    "NIfTI values: infinity inside",
    "names and sidecars: a link to itself",
    "DICOM folders: a sound series",
    "DICOM pixels: no pixels",
    "DICOM geometry: unequal steps",
    "pictures: half of it",
    "arrays: objects that run code",
    "weights: a flipped bit",
    "settings: restore --scale nan",
    "outputs: another name of the input",
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pydicom, on its own files
    CASES = all_cases()
    OF_PACKAGES = package_cases()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("odd"))
    yield runner
    runner.close()


def check(runner: Runner, case: Case) -> None:
    missing = case.missing()
    if missing is not None:
        pytest.skip(missing)
    result = runner.run(case)
    said = f"{result.ended.stdout}{result.ended.stderr}"
    assert not result.faults, "\n".join([*result.faults, "It said:", said])


@pytest.mark.slow
@pytest.mark.parametrize("title", QUICK)
def test_one_of_each_family_ends_as_it_should(runner: Runner, title: str) -> None:
    check(runner, CASES[title])


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in CASES if title not in QUICK])
def test_a_bad_or_odd_input_ends_as_it_should(runner: Runner, title: str) -> None:
    check(runner, CASES[title])


@pytest.mark.slow
@pytest.mark.parametrize("title", OF_PACKAGES)
def test_a_file_of_another_package_is_restored_or_refused(runner: Runner, title: str) -> None:
    check(runner, OF_PACKAGES[title])


def test_the_corpus_has_every_family_and_unlike_names() -> None:
    families = {case.family for case in CASES.values()}
    assert len(CASES) >= 170
    assert {title.partition(":")[0] for title in QUICK} <= families


@pytest.mark.parametrize(
    ("stderr", "code", "fault"),
    [
        ("Traceback (most recent call last)\nerror: x: truncated", 3, "traceback"),
        ("x: truncated", 3, "one line"),
        ("error: x: truncated\nmore", 3, "one line"),
        ("error: x: truncated", 1, "exit code 1, not 3"),
        ("error: x: no colour", 3, "does not say"),
        ("error: x: truncated", -9, "signal 9"),
        ("", 0, "not refused"),
    ],
)
def test_what_is_not_as_it_should_be_is_seen(
    tmp_path: Path, stderr: str, code: int, fault: str
) -> None:
    case = CASES["NIfTI bytes: half of the gzip"]
    ended = Ended(code, "", 0.1, 0, "", stderr)
    assert any(fault in said for said in judge(case, ended, tmp_path, {}))


@pytest.mark.parametrize("trace", [".out-12345678.partial.nii.gz", ".out.nii.gz.lock", "PWNED"])
def test_what_is_left_behind_is_seen(tmp_path: Path, trace: str) -> None:
    case = CASES["NIfTI bytes: half of the gzip"]
    (tmp_path / trace).write_text("")
    ended = Ended(3, "", 0.1, 0, "", "error: scan.nii.gz: the data is truncated")
    assert judge(case, ended, tmp_path, {})
    (tmp_path / trace).unlink()
    assert not judge(case, ended, tmp_path, {})
