"""What is taken for DICOM by its first bytes, and what is not."""

from __future__ import annotations

import io
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image

from restore_rwkv.io.dicom.signature import HEAD, may_be_dicom
from tests.helpers.dicom_folders import bare
from tests.helpers.synthetic_series import make_slice


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_only_is_known_by_its_class(implicit: bool) -> None:
    dataset = make_slice(0)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data = bare(dataset, implicit=implicit)
    assert may_be_dicom(data[:HEAD])
    del dataset.SOPClassUID
    assert not may_be_dicom(bare(dataset, implicit=implicit)[:HEAD])


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("length", [0, 3, 8, 11, 20])
def test_the_start_of_a_data_set_is_not_enough(implicit: bool, length: int) -> None:
    assert not may_be_dicom(bare(make_slice(0), implicit=implicit)[:length])


def test_file_meta_information_without_a_preamble_is_dicom() -> None:
    meta = b"\2\0\0\0UL\4\0\x1a\0\0\0" + b"\2\0\2\0UI\x1a\0" + b"1.2.840.10008.5.1.4.1.1.2\0"
    assert may_be_dicom(meta)
    assert not may_be_dicom(meta.replace(b"1.2.840", b"text of"))


def _others() -> dict[str, bytes]:
    files = {"text": b"no image at all\n" * 300, "empty": b"", "zeros": bytes(HEAD)}
    files["low numbers"] = bytes([8, 0]) * (HEAD // 2)
    nifti = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    files["NIfTI-1"] = nifti.to_bytes()
    files["NIfTI-2"] = nibabel.Nifti2Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    for name in ("npy", "png", "zip"):
        stream = io.BytesIO()
        if name == "npy":
            np.save(stream, np.arange(600))
        elif name == "png":
            Image.fromarray(np.zeros((9, 9), np.uint8)).save(stream, "png")
        else:
            with zipfile.ZipFile(stream, "w") as archive:
                archive.writestr("1.2.840.10008.5.1.4.1.1.2", b"\x08\x00\x16\x00UI\x04\x001.2.")
        files[name] = stream.getvalue()
    return files


@pytest.mark.parametrize("name", list(_others()))
def test_other_files_are_not_dicom(name: str) -> None:
    assert not may_be_dicom(_others()[name][:HEAD])


def test_chance_does_not_make_dicom() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        assert not may_be_dicom(b"\x08\0" + rng.bytes(510))
