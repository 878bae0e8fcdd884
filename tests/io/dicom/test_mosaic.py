"""Mosaics: unpacked where the header says where their slices lie, refused by name elsewhere."""

from __future__ import annotations

import gzip
import re
import shutil
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pydicom
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource
from restore_rwkv.io.dicom import read_dicom
from tests.helpers.dicom_folders import mosaic
from tests.helpers.synthetic_series import (
    COLUMN,
    NORMAL,
    ORIGIN,
    ROW,
    SPACING,
    STEP,
    lps,
    make_slice,
    save,
)

TILES = np.random.default_rng(0).integers(0, 900, (7, 5, 6)).astype(np.uint16)
REAL = Path(str(files("nibabel"))) / "nicom" / "tests" / "data" / "siemens_dwi_0.dcm.gz"


@pytest.mark.parametrize("sign", [1, -1])
def test_slices_lie_along_the_normal_of_the_private_header(tmp_path: Path, sign: int) -> None:
    save(mosaic(TILES, normal=sign * NORMAL), tmp_path / "mosaic.dcm")
    volume = read_dicom(tmp_path / "mosaic.dcm")
    assert volume.data.shape == (6, 5, 7)
    assert isinstance(volume.source, DicomSource)
    assert (volume.source.mosaic, volume.source.frames) == (True, ())
    assert len(volume.source.files) == 1
    for k, tile in enumerate(TILES):
        at = k if sign > 0 else 6 - k
        np.testing.assert_array_equal(volume.data[..., at].T, tile)
        corner = ORIGIN + sign * k * STEP * NORMAL
        np.testing.assert_allclose(lps(volume, 0, 0, at), corner, atol=1e-6)
        opposite = corner + ROW * SPACING[1] * 5 + COLUMN * SPACING[0] * 4
        np.testing.assert_allclose(lps(volume, 5, 4, at), opposite, atol=1e-6)


@pytest.mark.skipif(not REAL.is_file(), reason="nibabel is installed without its test files")
def test_a_mosaic_of_a_scanner_lies_where_its_protocol_and_nibabel_say(tmp_path: Path) -> None:
    file = tmp_path / "mosaic.dcm"
    with gzip.open(REAL) as packed, file.open("wb") as out:
        shutil.copyfileobj(packed, out)
    volume = read_dicom(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.csareader import get_csa_header
        from nibabel.nicom.dicomwrappers import wrapper_from_file

        peer = wrapper_from_file(file)
        protocol = get_csa_header(pydicom.dcmread(file), "series")
    data = peer.get_data()
    assert volume.data.shape == (128, 128, 48)
    np.testing.assert_array_equal(volume.data, data.swapaxes(0, 1))
    assert volume.affine is not None
    expected = np.diag([-1, -1, 1, 1]) @ peer.affine[:, [1, 0, 2, 3]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)
    text = protocol["tags"]["MrPhoenixProtocol"]["items"][0]
    found = re.findall(r"asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*= (\S+)", text)
    centres = np.zeros((48, 3))
    for k, axis, value in found:
        centres[int(k), ["Sag", "Cor", "Tra"].index(axis)] = float(value)
    for k in (0, 17, 47):  # the header writes directions with six decimals
        np.testing.assert_allclose(lps(volume, 64, 64, k), centres[k], atol=5e-4)


def test_a_mosaic_without_its_header_is_refused_by_name(tmp_path: Path) -> None:
    save(mosaic(TILES), tmp_path / "m.dcm")
    with pytest.raises(InputError, match=r"^m.dcm: a mosaic of 7 slices without the header .* lie"):
        read_dicom(tmp_path / "m.dcm")


@pytest.mark.parametrize("distance", [None, 0])
def test_a_mosaic_without_the_distance_of_its_slices_is_refused(
    tmp_path: Path, distance: float | None
) -> None:
    save(mosaic(TILES, normal=NORMAL, distance=distance), tmp_path / "m.dcm")
    with pytest.raises(InputError, match=r"^m.dcm: a mosaic of 7 slices without the header"):
        read_dicom(tmp_path / "m.dcm")


def test_a_normal_that_contradicts_the_slices_is_refused(tmp_path: Path) -> None:
    save(mosaic(TILES, normal=ROW), tmp_path / "m.dcm")
    with pytest.raises(InputError, match=r"^m.dcm: a mosaic of 7 slices without the header"):
        read_dicom(tmp_path / "m.dcm")


def test_a_resized_mosaic_is_refused(tmp_path: Path) -> None:
    dataset = mosaic(TILES, normal=NORMAL)
    dataset.Rows = 16
    save(dataset, tmp_path / "m.dcm")
    with pytest.raises(InputError, match=r"^m.dcm: a mosaic of 3 x 3 tiles cannot have 16 x 18 p"):
        read_dicom(tmp_path / "m.dcm")


def test_a_time_series_of_mosaics_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for n in range(3):
        save(mosaic(TILES, normal=NORMAL), tmp_path / "run" / f"{n}.dcm")
    with pytest.raises(InputError, match=r"^0.dcm: one of 3 mosaics, each a volume of a time ser"):
        read_dicom(tmp_path / "run")
    assert read_dicom(tmp_path / "run" / "1.dcm").data.shape == (6, 5, 7)


def test_a_mosaic_of_united_imaging_is_refused(tmp_path: Path) -> None:
    dataset = make_slice(0)
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "36")
    save(dataset, tmp_path / "m.dcm")
    with pytest.raises(InputError, match=r"^m.dcm: a mosaic of slices without the header"):
        read_dicom(tmp_path / "m.dcm")
