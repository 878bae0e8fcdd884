"""Several images at each position: the refusal names what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom import read_dicom
from tests.helpers.synthetic_series import SLICES, make_slice, save


def write_twice(folder: Path, *values: dict[str, object]) -> Path:
    """Write the stack once with each set of values."""
    folder.mkdir()
    for n, elements in enumerate(values):
        for k in range(SLICES):
            dataset = make_slice(k)
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)
            dataset.AcquisitionTime = f"1000{k:02d}"
            save(dataset, folder / f"{k}_{n}.dcm")
    return folder


@pytest.mark.parametrize(
    ("keyword", "values", "said"),
    [
        ("EchoNumbers", (1, 2), r"EchoNumbers separates 2 stacks \(1, 2\)"),
        ("TemporalPositionIdentifier", (3, 4), "TemporalPositionIdentifier separates 2 stacks"),
        ("AcquisitionNumber", range(1, 7), r"AcquisitionNumber .* 6 stacks \(1, 2, 3, 4, \.\.\.\)"),
        ("DiffusionBValue", (0.0, 800.0), r"DiffusionBValue separates 2 stacks \(0\.0, 800\.0\)"),
        ("NominalPercentageOfCardiacPhase", (0.0, 50.0), "NominalPercentageOfCardiacPhase"),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
            r"ImageType separates 2 stacks \(ORIGINAL\\PRIMARY\\M, ORIGINAL\\PRIMARY\\P\)",
        ),
    ],
)
def test_what_separates_images_at_one_position_is_named(
    tmp_path: Path, keyword: str, values: tuple[object, ...], said: str
) -> None:
    folder = write_twice(tmp_path / "scan", *({keyword: value} for value in values))
    with pytest.raises(InputError, match=rf"^scan: 0_.*dcm lie at the same position; {said}") as e:
        read_dicom(folder)
    assert str(e.value).endswith(": give one of them, in a folder or file of its own")


def test_the_b_value_of_siemens_is_named(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    for k in range(SLICES):
        for b in (0, 1000):
            dataset: Dataset = make_slice(k)
            block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
            block.add_new(0x0C, "IS", b)
            save(dataset, tmp_path / "scan" / f"{k}_{b}.dcm")
    with pytest.raises(InputError, match=r"the b-value \(0019,100C\) separates 2 stacks \(0, 1000"):
        read_dicom(tmp_path / "scan")


def test_nothing_is_named_that_does_not_separate_the_images(tmp_path: Path) -> None:
    folder = write_twice(tmp_path / "scan", {}, {})
    with pytest.raises(InputError, match="lie at the same position; put each phase, echo or time"):
        read_dicom(folder)


def test_an_element_with_other_numbers_of_images_does_not_separate_them(tmp_path: Path) -> None:
    folder = write_twice(tmp_path / "scan", {"EchoNumbers": 1}, {"EchoNumbers": 2})
    (folder / "2_1.dcm").unlink()
    with pytest.raises(InputError, match="lie at the same position; put each phase, echo or time"):
        read_dicom(folder)
