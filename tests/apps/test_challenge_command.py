from __future__ import annotations

import json
from pathlib import Path

import pytest

from restore_rwkv.io import write_volume
from tests.helpers.challenges import head
from tests.helpers.commands import Call


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "head.nii.gz"
    write_volume(head(96), path)
    return path


def test_lesions_of_every_kind_have_a_row(
    good: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    words = ("challenge", good, "-t", "mri-sr", "--weights", tiny_weights, "--places", "3")
    result = call(*words, "--contrasts", "10,20", "--radii", "4,5", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    rows = [line.split()[:4] for line in result.stdout.splitlines()]
    for method in ("tiny", "input", "blur"):
        for contrast in ("10", "20"):
            for radius in ("4", "5"):
                assert [method, contrast, radius, "3"] in rows
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["challenge.json", "lesions.csv", "lesions.png", "places.csv"]
    assert "± is the standard deviation over lesions" in result.stdout
    assert "No d': " in result.stdout
    assert "tiny less the others, at the same places" in result.stdout
    assert "Intervals are within this scan only" in " ".join(result.stdout.split())


def test_json_holds_the_summaries(
    good: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    words = ("challenge", good, "-t", "mri-sr", "--weights", tiny_weights, "--places", "3")
    result = call(*words, "--contrasts", "10", "--json", "-o", tmp_path / "out")
    values = json.loads(result.stdout)
    assert values["methods"] == ["tiny", "input", "blur"]
    assert values["output_path"] == str(tmp_path / "out")
    assert values["unit"] == "%"
    assert values["provenance"]["weights"]["tiny"]["weights"] == "tiny.safetensors"
    assert [each["other"] for each in values["comparisons"]] == ["input", "blur"]
    assert {"retained", "interval", "lost", "lost_by_other", "p"} <= values["comparisons"][0].keys()
    assert {"retained", "lost", "invented", "seen", "score"} <= values["summaries"][0].keys()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--contrasts", "0"), 2, "--contrasts: 0 makes no lesion; give numbers above 0"),
        (("--contrasts", "5;10"), 2, "--contrasts is '5;10'; give numbers between commas"),
        (("--contrasts", "900"), 2, "--contrasts: 900 % is no lesion of MRI"),
        (("--radii", "0.2"), 3, "below its pixels of 1.5 mm; give larger --radii MM"),
        (("--radii", "40"), 2, "--apart is 35 mm"),
        (
            ("--radii", "40", "--apart", "200"),
            3,
            "head.nii.gz: 30 mm are too small for lesions of 40 mm radius",
        ),
        (
            ("--radii", "12", "--apart", "60"),
            3,
            "head.nii.gz: has no homogeneous tissue that holds a lesion of 12 mm",
        ),
        (("--weights", "light-ct-denoise"), 5, "trained for ct-denoise, not mri-sr"),
        (("--factor", "1"), 2, "--factor is 1; give a number above 1"),
    ],
)
def test_what_cannot_be_planted_is_refused_in_one_line(
    words: tuple[str, ...], code: int, message: str, good: Path, tmp_path: Path, call: Call
) -> None:
    result = call("challenge", good, "-t", "mri-sr", *words, "-o", tmp_path / "out")
    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_scan_without_geometry_or_of_low_quality_is_refused(
    good: Path, tmp_path: Path, call: Call
) -> None:
    array = tmp_path / "array.npy"
    write_volume(head(96), array)
    result = call("challenge", array, "-t", "mri-sr", "-o", tmp_path / "out")
    assert (result.returncode, "array.npy: has no geometry" in result.stderr) == (3, True)
    low = tmp_path / "low.nii.gz"
    assert call("degrade", good, "-t", "mri-sr", "-o", low).returncode == 0
    result = call("challenge", low, "-t", "mri-sr", "-o", tmp_path / "out")
    assert result.returncode == 3
    assert "was degraded, as its record says" in result.stderr


def test_a_scan_that_is_given_twice_is_refused_by_its_path(
    good: Path, tmp_path: Path, call: Call
) -> None:
    result = call("challenge", good, good, "-t", "mri-sr", "-o", tmp_path / "out")
    assert result.returncode == 3
    assert f"error: {good.as_posix()}: several scans have this name; give each" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_refused_before_scans_are_read(tmp_path: Path, call: Call) -> None:
    result = call("challenge", tmp_path / "none.nii", "-o", tmp_path)
    assert result.returncode == 3
    assert "exists already; name another folder" in result.stderr
