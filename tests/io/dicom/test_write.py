"""Derived series: the values and the geometry of the source, in its form, read alike by others."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, read_volume
from restore_rwkv.io.dicom.derived import Derivation
from restore_rwkv.io.dicom.write import WrittenSeries, check_dicom_output, write_dicom
from restore_rwkv.io.volume import same_field_of_view
from tests.helpers.derivable_series import (
    CLASSIC,
    COLUMN,
    COLUMNS,
    ENHANCED,
    KINDS,
    NORMAL,
    ORIGIN,
    ROW,
    ROWS,
    SLICES,
    SPACING,
    Kind,
    position,
    values,
    write_source,
)
from tests.helpers.tools import needs

_JUDGED = needs("dciodvfy", "dcentvfy")
_PLACING = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_DCMTK = needs("dcmdump")


def _derive(volume: Volume, folder: Path, derivation: Derivation) -> WrittenSeries:
    folder.mkdir()
    return write_dicom(volume, folder, derivation)


def _read_back(folder: Path, kind: Kind) -> Volume:
    return read_volume(folder if kind in CLASSIC else folder / "IMG00001.dcm")


def _finer(volume: Volume, factor: int) -> Volume:
    """Return a volume whose voxels are repeated in the plane of the slices."""
    data = volume.data.repeat(factor, 0).repeat(factor, 1)
    assert volume.affine is not None
    return volume.resampled(data, same_field_of_view(volume.affine, volume.data.shape, data.shape))


def _frames(file: Path) -> list[np.ndarray]:
    """Values of each slice in a file, in its order."""
    image = pydicom.dcmread(file)
    frames = image.pixel_array.reshape(-1, image.Rows, image.Columns)
    groups = image.get("PerFrameFunctionalGroupsSequence") or [image]
    rescale = [group.get("PixelValueTransformationSequence", [group])[0] for group in groups]
    return [
        frame * float(item.get("RescaleSlope", 1)) + float(item.get("RescaleIntercept", 0))
        for frame, item in zip(frames, rescale, strict=True)
    ]


def _positions(file: Path) -> list[list[str]]:
    """Position of each slice in a file, as text."""
    header = pydicom.dcmread(file)
    frames = header.get("PerFrameFunctionalGroupsSequence")
    owners = [header] if frames is None else [frame.PlanePositionSequence[0] for frame in frames]
    return [[str(x) for x in owner.ImagePositionPatient] for owner in owners]


def _geometry(dataset: Dataset) -> list[tuple[str, object]]:
    """Every element that places an image, at any depth, with its value as text."""
    found = []

    def visit(inner: Dataset, element: pydicom.DataElement) -> None:
        if element.keyword in _PLACING:
            found.append((element.keyword, str(element.value)))

    dataset.walk(visit)
    return found


def _errors(file: Path) -> set[str]:
    run = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    return {line for line in lines if line.startswith("Error")}


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_values_come_back_within_half_a_step(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind))
    written = _derive(volume, tmp_path / "out", derivation)
    result = _read_back(tmp_path / "out", kind)
    assert written.clipped == 0
    np.testing.assert_array_equal(result.affine, volume.affine)
    assert (result.unit, result.modality) == (volume.unit, volume.modality)
    if not kind.endswith("PT"):
        np.testing.assert_array_equal(result.data, volume.data)
    for k in range(SLICES):
        step = float(volume.data[..., k].max()) / 32767
        error = float(np.abs(result.data[..., k] - volume.data[..., k]).max())
        assert error <= step / 2 * 1.001  # values are float32


@pytest.mark.parametrize("kind", KINDS)
def test_every_slice_stays_in_its_place_to_the_last_digit(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind))
    written = _derive(volume, tmp_path / "out", derivation)
    assert isinstance(volume.source, DicomSource)
    for source, name in zip(volume.source.files, written.files, strict=True):
        result = pydicom.dcmread(tmp_path / "out" / name)
        before = pydicom.dcmread(source)
        assert _geometry(result) == _geometry(before) != []
        assert result.FrameOfReferenceUID == before.FrameOfReferenceUID


@pytest.mark.parametrize("kind", KINDS)
def test_a_tilted_stack_keeps_the_position_of_each_slice(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind, tilt=0.6))
    assert volume.source is not None
    assert isinstance(volume.source, DicomSource)
    assert volume.source.tilt > 2
    written = _derive(volume, tmp_path / "out", derivation)
    places = [place for name in written.files for place in _positions(tmp_path / "out" / name)]
    expected = [position(k, 0.6) for k in range(SLICES)]
    assert places == (expected if kind in CLASSIC else expected[::-1])
    frames = [frame for name in written.files for frame in _frames(tmp_path / "out" / name)]
    for k, frame in enumerate(frames if kind in CLASSIC else frames[::-1]):
        np.testing.assert_allclose(frame, values(kind, k), atol=frame.max() / 32767)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finer_grid_covers_the_same_field(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind))
    finer = _finer(volume, 2)
    written = _derive(finer, tmp_path / "out", derivation)
    result = _read_back(tmp_path / "out", kind)
    assert result.data.shape == (2 * COLUMNS, 2 * ROWS, SLICES)
    np.testing.assert_allclose(result.affine, finer.affine, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.data, finer.data, atol=finer.data.max() / 32767)
    image = pydicom.dcmread(tmp_path / "out" / written.files[0])
    assert (image.Rows, image.Columns) == (2 * ROWS, 2 * COLUMNS)
    spacing = [value for name, value in _geometry(image) if name == "PixelSpacing"]
    assert spacing == [str([SPACING[0] / 2, SPACING[1] / 2])]
    # The first centre moves by (1/f - 1)/2 pixel along both directions.
    moved = ORIGIN - (ROW * SPACING[1] + COLUMN * SPACING[0]) / 4
    first = [place for name in written.files for place in _positions(tmp_path / "out" / name)]
    first.sort(key=lambda place: float(np.array(place, float) @ NORMAL))
    np.testing.assert_allclose(np.array(first[0], float), moved, rtol=0, atol=1e-7)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("kind", ENHANCED)
def test_frames_may_state_everything_themselves(
    tmp_path: Path, derivation: Derivation, kind: Kind, factor: int
) -> None:
    def unshared(image: Dataset) -> None:
        (shared,) = image.SharedFunctionalGroupsSequence
        for frame in image.PerFrameFunctionalGroupsSequence:
            frame.update(copy.deepcopy(shared))
        image.SharedFunctionalGroupsSequence = []

    volume = read_volume(write_source(tmp_path / "in", kind, unshared))
    result = volume if factor == 1 else _finer(volume, factor)
    _derive(result, tmp_path / "out", derivation)
    frames = _frames(tmp_path / "out" / "IMG00001.dcm")
    for k, frame in enumerate(reversed(frames)):
        expected = values(kind, k).repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_allclose(frame, expected, atol=frame.max() / 32767)
    image = pydicom.dcmread(tmp_path / "out" / "IMG00001.dcm")
    assert len(image.SharedFunctionalGroupsSequence) == 1  # required, if empty
    for frame in image.PerFrameFunctionalGroupsSequence:
        spacing = frame.PixelMeasuresSequence[0].PixelSpacing
        assert list(spacing) == [SPACING[0] / factor, SPACING[1] / factor]


@_JUDGED
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1, 2])
def test_validators_find_no_new_error(
    tmp_path: Path, derivation: Derivation, kind: Kind, factor: int
) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind))
    result = volume if factor == 1 else _finer(volume, factor)
    written = _derive(result, tmp_path / "out", derivation)
    assert isinstance(volume.source, DicomSource)
    for source, name in zip(volume.source.files, written.files, strict=True):
        assert _errors(tmp_path / "out" / name) == _errors(source) == set()
    files = [str(file) for file in (*volume.source.files, *(tmp_path / "out").iterdir())]
    run = subprocess.run(["dcentvfy", *files], capture_output=True, text=True)
    assert run.stdout + run.stderr == ""


@pytest.mark.parametrize("kind", KINDS)
def test_simpleitk_reads_the_same_values_and_places(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    # SimpleITK applies the slope of one frame to all of an enhanced PET.
    volume = read_volume(write_source(tmp_path / "in", kind, shared_slope=kind == "enhanced PT"))
    written = _derive(volume, tmp_path / "out", derivation)
    step = volume.data.max() / 32767
    if kind in ENHANCED:
        assert isinstance(volume.source, DicomSource)
        before = SimpleITK.ReadImage(str(volume.source.files[0]))
        after = SimpleITK.ReadImage(str(tmp_path / "out" / written.files[0]))
        for name in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
            assert getattr(after, name)() == getattr(before, name)()
        expected = SimpleITK.GetArrayFromImage(before)
        assert expected.max() == pytest.approx(volume.data.max())
        np.testing.assert_allclose(SimpleITK.GetArrayFromImage(after), expected, atol=step)
        return
    for k, name in enumerate(written.files):
        image = SimpleITK.ReadImage(str(tmp_path / "out" / name))
        array = SimpleITK.GetArrayFromImage(image)[0]
        np.testing.assert_allclose(array.T, volume.data[..., k], atol=step)
        np.testing.assert_allclose(image.GetOrigin(), np.array(position(k), float), atol=1e-6)
        np.testing.assert_allclose(image.GetSpacing()[:2], SPACING[::-1], atol=1e-9)


@_DCMTK
@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_reads_the_same_stored_pixels(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind))
    written = _derive(volume, tmp_path / "out", derivation)
    for name in written.files:
        file = tmp_path / "out" / name
        raw = tmp_path / f"raw-{name}"
        raw.mkdir()
        run = subprocess.run(["dcmdump", "+W", str(raw), str(file)], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        pixels = np.fromfile(next(raw.iterdir()), "<u2")
        expected = pydicom.dcmread(file).pixel_array.astype(np.uint16).ravel()
        np.testing.assert_array_equal(pixels, expected)


def test_slices_keep_their_numbers_only_where_these_differ(
    tmp_path: Path, derivation: Derivation
) -> None:
    def same(image: Dataset) -> None:
        image.InstanceNumber = 3

    for name, change, expected in (
        ("own", lambda image: None, [10, 11, 12, 13]),
        ("same", same, [1, 2, 3, 4]),
    ):
        volume = read_volume(write_source(tmp_path / name, "CT", change))
        written = _derive(volume, tmp_path / f"{name}-out", derivation)
        assert written.files == tuple(f"IMG0000{k}.dcm" for k in (1, 2, 3, 4))
        numbers = [
            pydicom.dcmread(tmp_path / f"{name}-out" / file).InstanceNumber
            for file in written.files
        ]
        assert numbers == expected


@pytest.mark.parametrize("kind", ["CT", "MR", "enhanced CT", "enhanced MR"])
def test_values_beyond_the_stored_numbers_are_clipped_and_counted(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    def narrow(image: Dataset) -> None:
        image.BitsStored, image.HighBit = 12, 11
        image.PixelRepresentation = 0

    volume = read_volume(write_source(tmp_path / "in", kind, narrow))
    data = volume.data.copy()
    data[3, 4, 1], data[5, 6, 2] = 1e6, -1e6
    written = _derive(volume.with_data(data), tmp_path / "out", derivation)
    result = _read_back(tmp_path / "out", kind).data
    assert written.clipped == 2
    assert result[3, 4, 1] == result.max() > data[5, 6, 2]
    assert result[5, 6, 2] == result.min()
    data[3, 4, 1], data[5, 6, 2] = result[3, 4, 1], result[5, 6, 2]
    np.testing.assert_array_equal(result, data)


@pytest.mark.parametrize("shared", [True, False])
def test_enhanced_pet_has_one_slope_only_where_its_source_has(
    tmp_path: Path, derivation: Derivation, shared: bool
) -> None:
    path = write_source(tmp_path / "in", "enhanced PT", shared_slope=shared)
    volume = read_volume(path)
    _derive(volume, tmp_path / "out", derivation)
    image = pydicom.dcmread(tmp_path / "out" / "IMG00001.dcm")
    groups = (image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence)
    own, other = groups if shared else groups[::-1]
    assert all("PixelValueTransformationSequence" not in group for group in other)
    largest = [values("enhanced PT", k).max() for k in reversed(range(SLICES))]
    expected = [volume.data.max()] if shared else largest
    for group, value in zip(own, expected, strict=True):
        item = group.PixelValueTransformationSequence[0]
        assert float(item.RescaleSlope) == pytest.approx(value / 32767, rel=1e-8)
        assert item.RescaleIntercept == 0


def test_padding_stays_and_nothing_else_becomes_it(tmp_path: Path, derivation: Derivation) -> None:
    def padded(image: Dataset) -> None:
        pixels = np.frombuffer(image.PixelData, np.int16).reshape(ROWS, COLUMNS).copy()
        pixels[:5] = -2000
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "US", 63536)  # -2000, as some scanners write it

    path = write_source(tmp_path / "in", "CT", padded)
    volume = read_volume(path)
    data = volume.data.copy()
    data += 7.0
    data[9, 9] = -2000 - 1024  # what padding looks like in HU
    written = _derive(volume.with_data(data), tmp_path / "out", derivation)
    for k, name in enumerate(written.files):
        pixels = pydicom.dcmread(tmp_path / "out" / name).pixel_array
        assert (pixels[:5] == -2000).all()
        assert pixels[9, 9] == -1999
        rest = np.delete(pixels[5:].ravel(), 4 * COLUMNS + 9)
        expected = np.delete(data[:, 5:, k].T.ravel(), 4 * COLUMNS + 9) + 1024
        np.testing.assert_array_equal(rest, expected)
    twice = _derive(_finer(volume, 2), tmp_path / "finer", derivation)
    finer = pydicom.dcmread(tmp_path / "finer" / twice.files[0]).pixel_array
    assert (finer[:10] == -2000).all()
    assert (finer[10:] != -2000).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"StudyInstanceUID": ""}, "StudyInstanceUID missing"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.20"}, "not of Nuclear Medicine"),
        ({"RescaleSlope": "0"}, "slope of 0"),
    ],
)
def test_a_source_without_what_it_needs_is_refused(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    def apply(image: Dataset) -> None:
        for keyword, value in change.items():
            setattr(image, keyword, value)

    volume = read_volume(write_source(tmp_path / "in", "CT", apply))
    with pytest.raises(InputError, match=reason):
        check_dicom_output(volume)


def test_values_from_a_table_are_refused(tmp_path: Path) -> None:
    def table(image: Dataset) -> None:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [4, 0, 16])
        item.ModalityLUTType = "US"
        item.add_new("LUTData", "US", [0, 1, 2, 3])
        image.ModalityLUTSequence = [item]

    volume = read_volume(write_source(tmp_path / "in", "MR", table))
    with pytest.raises(InputError, match="ModalityLUTSequence"):
        check_dicom_output(volume)


def test_files_that_have_gone_or_changed_are_refused(tmp_path: Path) -> None:
    volume = read_volume(write_source(tmp_path / "in", "CT"))
    assert isinstance(volume.source, DicomSource)
    first, second = volume.source.files[:2]
    copy = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match="have changed since they were read"):
        check_dicom_output(volume)
    first.unlink()
    with pytest.raises(InputError, match=rf"{first.name}: cannot be read any more"):
        check_dicom_output(volume)
    first.write_bytes(copy)
    check_dicom_output(volume)


@pytest.mark.parametrize("kind", ["CT", "enhanced MR"])
def test_a_volume_elsewhere_than_its_source_is_refused(tmp_path: Path, kind: Kind) -> None:
    volume = read_volume(write_source(tmp_path / "in", kind))
    assert volume.affine is not None
    moved = volume.affine.copy()
    moved[:3, 3] += 0.5
    turned = volume.affine.copy()
    turned[:3, 0] *= -1
    for affine in (moved, turned):
        with pytest.raises(InputError, match=r"lies .* mm from that of its DICOM source"):
            check_dicom_output(replace(volume, affine=affine))
    fewer = volume.resampled(volume.data[..., :3], volume.affine)
    with pytest.raises(InputError, match="3 slices and its DICOM source 4"):
        check_dicom_output(fewer)
    half = volume.data[::2, ::2]
    coarser = same_field_of_view(volume.affine, volume.data.shape, half.shape)
    with pytest.raises(InputError, match="coarser"):
        check_dicom_output(volume.resampled(half, coarser))


def test_a_volume_that_is_not_from_dicom_is_refused(scan: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.nii\.gz: not read from DICOM"):
        check_dicom_output(read_volume(scan))
    with pytest.raises(InputError, match="array: not read from DICOM"):
        check_dicom_output(Volume(np.zeros((4, 4, 4)), np.eye(4)))


@pytest.mark.parametrize(
    ("change", "slope", "intercept"),
    [
        (lambda d: delattr(d, "RescaleSlope"), 1.0, -1024.0),
        (lambda d: (delattr(d, "RescaleIntercept"), setattr(d, "RescaleSlope", 2)), 2.0, 0.0),
    ],
)
def test_half_a_rescale_counts_and_goes_out_again(
    tmp_path: Path,
    derivation: Derivation,
    change: Callable[[Dataset], None],
    slope: float,
    intercept: float,
) -> None:
    """pydicom applies neither where one of the two is missing."""
    plain = read_volume(write_source(tmp_path / "plain", "CT")).data
    volume = read_volume(write_source(tmp_path / "in", "CT", change))
    np.testing.assert_array_equal(volume.data, (plain + 1024) * slope + intercept)
    _derive(volume, tmp_path / "out", derivation)
    np.testing.assert_array_equal(_read_back(tmp_path / "out", "CT").data, volume.data)


def test_a_rescale_outside_the_groups_of_the_frames_is_refused(tmp_path: Path) -> None:
    def outside(image: Dataset) -> None:
        image.RescaleSlope = 3

    volume = read_volume(write_source(tmp_path / "in", "enhanced MR", outside))
    with pytest.raises(InputError, match="outside the groups of its frames"):
        check_dicom_output(volume)


def test_slices_of_two_patients_are_no_series(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", "CT")
    first = pydicom.dcmread(sorted(source.iterdir())[0])
    first.PatientID = "another"
    first.save_as(first.filename)
    with pytest.raises(InputError, match="PatientID differs"):
        check_dicom_output(read_volume(source))
