"""Maps as parametric maps: values bit for bit, where the scan is, with their meaning."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, read_volume
from restore_rwkv.io.dicom.derived import Derivation
from restore_rwkv.io.dicom.geometry import LPS_TO_RAS
from restore_rwkv.io.dicom.maps import Quantity, check_parametric_map, write_parametric_map
from restore_rwkv.io.volume import same_field_of_view
from tests.helpers.derivable_series import CLASSIC, KINDS, Kind, write_source
from tests.helpers.tools import needs

_QUANTITY = Quantity(
    label="uncertainty",
    explanation="Standard deviation of the restored value",
    unit=("[hnsf'U]", "UCUM", "Hounsfield unit"),
    concept=("386136009", "SCT", "Standard deviation"),
)


def _map_of(volume: Volume, factor: int = 1) -> Volume:
    assert volume.affine is not None
    x, y, z = volume.data.shape
    data = np.random.default_rng(0).normal(size=(factor * x, factor * y, z)).astype(np.float32)
    return volume.resampled(data, same_field_of_view(volume.affine, (x, y, z), data.shape))


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_values_places_and_meaning_of_a_map(
    tmp_path: Path, derivation: Derivation, kind: Kind, factor: int
) -> None:
    source = read_volume(write_source(tmp_path / "in", kind))
    given = _map_of(source, factor)
    uid = write_parametric_map(given, tmp_path / "map.dcm", _QUANTITY, derivation)
    image = pydicom.dcmread(tmp_path / "map.dcm")
    assert isinstance(source.source, DicomSource)
    origin = pydicom.dcmread(source.source.files[0])
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert image[keyword] == origin[keyword]
    assert image.SeriesInstanceUID == uid != origin.SeriesInstanceUID
    assert image.SeriesNumber == 1008
    assert "Not a medical device" in image.ImageComments
    assert given.affine is not None
    inverse = np.linalg.inv(LPS_TO_RAS @ given.affine)
    places = set()
    for frame, pixels in zip(
        image.PerFrameFunctionalGroupsSequence, image.pixel_array, strict=True
    ):
        index = inverse @ [*frame.PlanePositionSequence[0].ImagePositionPatient, 1.0]
        np.testing.assert_allclose(index, index.round(), rtol=0, atol=1e-6)
        k = round(float(index[2]))
        places.add(tuple(index.round().astype(int)[:2].tolist()))
        np.testing.assert_array_equal(pixels.T, given.data[..., k])
        if kind in CLASSIC:
            (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
            assert reference.ReferencedSOPInstanceUID == source.source.sop_instance_uids[k]
    assert places == {(0, 0)}
    shared = image.SharedFunctionalGroupsSequence[0]
    mapping = (
        shared
        if "RealWorldValueMappingSequence" in shared
        else image.PerFrameFunctionalGroupsSequence[0]
    ).RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.LUTLabel == "UNCERTAINTY"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"


@needs("dciodvfy")
@pytest.mark.parametrize("kind", KINDS)
def test_validators_find_no_error(tmp_path: Path, derivation: Derivation, kind: Kind) -> None:
    source = read_volume(write_source(tmp_path / "in", kind))
    path = tmp_path / "map.dcm"
    write_parametric_map(_map_of(source), path, _QUANTITY, derivation)
    run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
    assert not [line for line in (run.stdout + run.stderr).splitlines() if "Error" in line]
    assert isinstance(source.source, DicomSource)
    files = [str(file) for file in (*source.source.files, path)]
    run = subprocess.run(["dcentvfy", *files], capture_output=True, text=True)
    assert run.stdout + run.stderr == ""


def test_a_constant_map_is_written(tmp_path: Path, derivation: Derivation) -> None:
    source = read_volume(write_source(tmp_path / "in", "CT"))
    flat = source.with_data(np.full_like(source.data, 2.5))
    write_parametric_map(flat, tmp_path / "map.dcm", _QUANTITY, derivation)
    image = pydicom.dcmread(tmp_path / "map.dcm")
    assert (image.pixel_array == 2.5).all()
    with pytest.raises(FileExistsError):
        write_parametric_map(flat, tmp_path / "map.dcm", _QUANTITY, derivation)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_can_be_written_passes_the_check(
    tmp_path: Path, kind: Kind, factor: int
) -> None:
    check_parametric_map(_map_of(read_volume(write_source(tmp_path / "in", kind)), factor))


def test_a_map_of_an_image_that_was_made_by_others_names_no_network(
    tmp_path: Path, derivation: Derivation
) -> None:
    source = read_volume(write_source(tmp_path / "in", "CT"))
    others = replace(derivation, weights="", weights_sha256="")
    write_parametric_map(source, tmp_path / "map.dcm", _QUANTITY, others)
    image = pydicom.dcmread(tmp_path / "map.dcm")
    assert "neural network" not in image.ImageComments
    assert "slices restored one by one. Not a medical device" in image.ImageComments
    assert image.DeviceSerialNumber
    assert image.ManufacturerModelName == "restore-rwkv"


def test_a_source_without_a_patient_is_refused(tmp_path: Path, derivation: Derivation) -> None:
    path = write_source(tmp_path / "in", "CT", lambda image: image.pop("PatientName"))
    with pytest.raises(InputError, match="no parametric map can be made of its headers"):
        check_parametric_map(read_volume(path))
    with pytest.raises(InputError, match="no parametric map can be made of its headers"):
        write_parametric_map(read_volume(path), tmp_path / "map.dcm", _QUANTITY, derivation)
