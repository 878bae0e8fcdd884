"""One phantom through every reader and writer: each voxel keeps its value and its place."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, as_volume, read_volume, write_volume

SHAPE = (7, 5, 4)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def grid(turn: tuple[float, float, float], flips: tuple[int, int, int]) -> np.ndarray:
    """Anisotropic voxels, turned about three axes, some axes mirrored."""
    a, b, c = turn
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_y @ about_z @ np.diag(flips) @ np.diag([0.7, 1.3, 4.5])
    affine[:3, 3] = [-91.25, 37.5, 1012.125]
    return affine


GRIDS = {
    "straight": grid((0, 0, 0), (1, 1, 1)),
    "mirrored": grid((0, 0, 0), (-1, 1, 1)),
    "left-handed": grid((0.1, 0, 0), (1, 1, -1)),
    "oblique": grid((0.31, -0.22, 1.1), (1, 1, 1)),
    "oblique, left-handed": grid((-0.4, 0.5, 2.3), (-1, -1, -1)),
    "sagittal": grid((0, np.pi / 2, 0), (1, -1, 1)),
}
Maker = Callable[[Path, np.ndarray, np.ndarray], object]


def phantom() -> np.ndarray:
    """Values that say their voxel: i + 10 j + 100 k."""
    i, j, k = np.indices(SHAPE)
    return (i + 10 * j + 100 * k).astype(np.int16)


def by_nibabel(kind: type, suffix: str) -> Maker:
    def make(folder: Path, numbers: np.ndarray, affine: np.ndarray) -> Path:
        image = kind(numbers, affine)
        if hasattr(image, "set_qform"):
            image.set_qform(affine, 1)
        nibabel.save(image, folder / f"scan{suffix}")
        return folder / f"scan{suffix}"

    return make


def qform_only(folder: Path, numbers: np.ndarray, affine: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(numbers, None)
    image.set_qform(affine, 1)
    nibabel.save(image, folder / "scan.nii")
    return folder / "scan.nii"


def as_sitk(numbers: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(numbers.transpose())
    matrix = LPS @ affine
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def by_sitk(suffix: str, *, compressed: bool = False) -> Maker:
    def make(folder: Path, numbers: np.ndarray, affine: np.ndarray) -> Path:
        SimpleITK.WriteImage(as_sitk(numbers, affine), folder / f"scan{suffix}", compressed)
        return folder / f"scan{suffix}"

    return make


def nrrd_in(space: str, to_ras: list[float]) -> Maker:
    """A NRRD header in another space, in big-endian text of another writer."""

    def make(folder: Path, numbers: np.ndarray, affine: np.ndarray) -> Path:
        matrix = np.diag([*to_ras, 1.0]) @ affine
        *steps, origin = (
            f"({','.join(repr(float(x)) for x in column[:3])})" for column in matrix.T
        )
        header = [
            "NRRD0005",
            "# a comment",
            "type: signed short",
            "dimension: 3",
            f"space: {space}",
            f"sizes: {' '.join(map(str, numbers.shape))}",
            f"space directions: {' '.join(steps)}",
            "kinds: space space space",
            "endian: big",
            "encoding: gz",
            'space units: "mm" "mm" "mm"',
            f"space origin: {origin}",
            "some key:=some value",
            *("", ""),
        ]
        data = gzip.compress(numbers.astype(">i2").tobytes(order="F"))
        (folder / "scan.nrrd").write_bytes("\r\n".join(header).encode() + data)
        return folder / "scan.nrrd"

    return make


def in_memory(folder: Path, numbers: np.ndarray, affine: np.ndarray) -> object:
    return nibabel.Nifti1Image(numbers, affine)


MAKERS: dict[str, Maker] = {
    "nii": by_nibabel(nibabel.Nifti1Image, ".nii"),
    "nii.gz": by_nibabel(nibabel.Nifti1Image, ".nii.gz"),
    "nifti-2": by_nibabel(nibabel.Nifti2Image, ".nii"),
    "pair": by_nibabel(nibabel.Nifti1Pair, ".img"),
    "pair.gz": by_nibabel(nibabel.Nifti1Pair, ".img.gz"),
    "qform": qform_only,
    "mgh": by_nibabel(nibabel.MGHImage, ".mgh"),
    "mgz": by_nibabel(nibabel.MGHImage, ".mgz"),
    "itk nii": by_sitk(".nii.gz"),
    "nrrd": by_sitk(".nrrd"),
    "nrrd gzip": by_sitk(".nrrd", compressed=True),
    "nhdr": by_sitk(".nhdr"),
    "nhdr gzip": by_sitk(".nhdr", compressed=True),
    "nrrd RAS": nrrd_in("right-anterior-superior", [1, 1, 1]),
    "nrrd LAS": nrrd_in("left-anterior-superior", [-1, 1, 1]),
    "nrrd short LPS": nrrd_in("LPS", [-1, -1, 1]),
    "mha": by_sitk(".mha"),
    "mha zlib": by_sitk(".mha", compressed=True),
    "mhd": by_sitk(".mhd"),
    "mhd zlib": by_sitk(".mhd", compressed=True),
    "nibabel image": in_memory,
    "nibabel MGH": lambda folder, numbers, affine: nibabel.MGHImage(numbers, affine),
    "SimpleITK image": lambda folder, numbers, affine: as_sitk(numbers, affine),
}


def assert_placed(volume: Volume, affine: np.ndarray) -> None:
    """Each value is the phantom's, in its place to 1e-6 of the largest coordinate."""
    np.testing.assert_array_equal(volume.data, phantom())
    assert volume.affine is not None
    for corner in itertools.product(*((0, length - 1) for length in SHAPE)):
        place, expected = (matrix @ [*corner, 1] for matrix in (volume.affine, affine))
        np.testing.assert_allclose(place, expected, rtol=0, atol=1e-6 * np.abs(affine).max())


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("maker", MAKERS)
def test_every_reader_puts_each_voxel_in_its_place(tmp_path: Path, maker: str, name: str) -> None:
    made = MAKERS[maker](tmp_path, phantom(), GRIDS[name])
    volume = read_volume(made) if isinstance(made, Path) else as_volume(made)
    assert_placed(volume, GRIDS[name])


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dtype", ["float32", "source"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mgh", ".mgz"])
def test_every_writer_puts_each_voxel_in_its_place(
    tmp_path: Path, suffix: str, dtype: str, name: str
) -> None:
    volume = read_volume(by_sitk(".mha")(tmp_path, phantom(), GRIDS[name]))
    path = tmp_path / f"out{suffix}"
    write_volume(volume, path, dtype=dtype)
    assert_placed(read_volume(path), GRIDS[name])
    if suffix.startswith((".mg", ".nii")):
        # From bytes: nibabel leaves .mgh files open.
        kind = nibabel.MGHImage if suffix.startswith(".mg") else nibabel.Nifti1Image
        packed = suffix in (".nii.gz", ".mgz")
        image = kind.from_bytes(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
        assert image.get_data_dtype().kind == ("f" if dtype == "float32" else "i")
        assert_placed(Volume(np.asanyarray(image.dataobj), image.affine), GRIDS[name])
    if not suffix.startswith(".mg"):
        image = SimpleITK.ReadImage(path)
        assert_placed(Volume.from_sitk(image), GRIDS[name])
        for corner in itertools.product(*((0, length - 1) for length in SHAPE)):
            place = LPS[:3, :3] @ image.TransformIndexToPhysicalPoint(corner)
            expected = GRIDS[name] @ [*corner, 1]
            np.testing.assert_allclose(place, expected[:3], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_images_of_python_go_both_ways(name: str) -> None:
    volume = Volume(phantom(), GRIDS[name], "HU", "CT")
    there = volume.to_sitk()
    for corner in itertools.product(*((0, length - 1) for length in SHAPE)):
        place = LPS[:3, :3] @ there.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose(place, (GRIDS[name] @ [*corner, 1])[:3], atol=1e-9)
    assert there[6, 4, 3] == 346
    back = Volume.from_sitk(there, unit="HU", modality="CT")
    assert_placed(back, GRIDS[name])
    assert (back.unit, back.modality) == ("HU", "CT")
    image = volume.to_nibabel()
    np.testing.assert_allclose(image.affine, GRIDS[name], rtol=1e-6)
    assert_placed(Volume.from_nibabel(image, unit="HU", modality="CT"), GRIDS[name])


def test_what_is_written_twice_is_equal(tmp_path: Path) -> None:
    volume = Volume(phantom(), GRIDS["oblique"])
    for suffix in (".nii.gz", ".nrrd", ".mha", ".mgz"):
        for name in ("a", "b"):
            write_volume(volume, tmp_path / f"{name}{suffix}")
        one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
        assert one == two


def test_slices_that_are_tilted_fit_dicom_only(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.2
    source = DicomSource(tmp_path, SHAPE, None, (), tilt=11.3)
    volume = Volume(phantom(), affine, source=source)
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".mgz"):
        with pytest.raises(InputError, match=r"tilted by 11\.3 degrees \(gantry tilt\).*DICOM"):
            write_volume(volume, tmp_path / f"out{suffix}")
    write_volume(volume, tmp_path / "out.npy")
    for suffix in (".nrrd", ".mha", ".mgh"):  # a sheared NIfTI affine stays possible
        with pytest.raises(InputError, match="axes are not perpendicular"):
            write_volume(Volume(phantom(), affine), tmp_path / f"out{suffix}")
    write_volume(Volume(phantom(), affine), tmp_path / "out.nii")
    assert_placed(read_volume(tmp_path / "out.nii"), affine)
