"""NIfTI as the page reads and writes it, beside the package, on the corpus of odd files."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume, write_volume
from restore_rwkv.io.nifti import count_nifti
from tests.helpers.odd_files import Case, all_cases
from tests.helpers.odd_files.images import AFFINE, mri, save_nifti
from tests.helpers.site import given, received
from tests.helpers.tools import needs

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs("chromium")]

# What the page refuses by design, and the reader of the package takes.
BEYOND = r"4 axes|header of a pair|128-bit|several parts"


def source(case: Case) -> str:
    """Name of the file that a case restores; empty where it is made by another command."""
    return next((word for word in case.words[-1].split() if word.startswith("scan")), "")


CASES = [case for case in all_cases().values() if case.family.startswith("NIfTI") and source(case)]

READ = """async file => {
    const { readNifti, niftiParts } = await import("/nifti.js");
    try {
        const volume = await readNifti(fileOf(file));
        const out = new Blob(niftiParts(volume, volume.data));
        return {
            grid: volume.grid, affine: volume.affine, data: textOfFloats(volume.data),
            out: textOf(new Uint8Array(await out.arrayBuffer())),
        };
    } catch (error) {
        return { refused: error.constructor.name === "Refusal", text: error.message };
    }
}"""


def read(modules: Page, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = modules.evaluate(READ, given(path))
    return found


def agree(found: dict[str, Any], path: Path, folder: Path) -> None:
    """Hold what the page has read to what the package reads, and what both write."""
    volume = read_volume(path)
    assert tuple(found["grid"]) == volume.data.shape
    assert volume.affine is not None
    np.testing.assert_allclose(found["affine"], volume.affine[:3], rtol=1e-12, atol=1e-9)
    values = received(found["data"]).reshape(volume.data.shape, order="F")
    np.testing.assert_array_equal(values, volume.data)
    write_volume(volume, folder / "written.nii")
    assert base64.b64decode(found["out"]) == (folder / "written.nii").read_bytes()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_odd_file_is_read_or_refused_as_by_the_package(
    case: Case, modules: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case.make(tmp_path)
    path = tmp_path / source(case)
    if not path.is_file():
        pytest.skip("no single file")
    found = read(modules, path)
    try:
        count = count_nifti(path)
        if count == 1:
            read_volume(path)
    except InputError:
        assert found.get("refused"), found.get("text", "was read")
        assert "\n" not in found["text"]
        assert found["text"].startswith(path.name)
        return
    if "text" in found:
        assert found["refused"], found["text"]
        assert re.search(BEYOND, found["text"]), found["text"]
        return
    agree(found, path, tmp_path)


TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_number_format_in_both_byte_orders(
    kind: str, order: str, modules: Page, tmp_path: Path
) -> None:
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(order + kind))
    values = (mri((9, 8, 3)) / 6).astype(order + kind)
    image = nib.Nifti1Image(values, AFFINE, header)
    image.header.set_slope_inter(*((0.25, -3.5) if kind != "f4" else (None, None)))
    nib.save(image, tmp_path / "scan.nii.gz")
    agree(read(modules, tmp_path / "scan.nii.gz"), tmp_path / "scan.nii.gz", tmp_path)


def test_a_gzip_bomb_ends_where_the_header_says(modules: Page, tmp_path: Path) -> None:
    save_nifti(tmp_path / "scan.nii", mri().astype(np.int16))
    bomb = gzip.compress((tmp_path / "scan.nii").read_bytes() + bytes(1 << 26))
    (tmp_path / "bomb.nii.gz").write_bytes(bomb)
    assert "holds more than" in read(modules, tmp_path / "bomb.nii.gz")["text"]


def test_an_axis_that_is_not_there_may_have_no_spacing(modules: Page, tmp_path: Path) -> None:
    for name, affine in (("guessed", None), ("qform", np.diag([-2.0, 3.0, 1.0, 1.0]))):
        image = nib.Nifti1Image(mri((9, 8, 1))[..., 0].astype(np.int16), affine)
        image.header["pixdim"][1:4] = (2, 3, 0)
        image.header["sform_code"] = 0
        path = tmp_path / name / "scan.nii"
        path.parent.mkdir()
        path.write_bytes(bytes(image.header.binaryblock) + bytes(4) + image.dataobj.tobytes("F"))
        agree(read(modules, path), path, path.parent)


def test_voxels_that_would_lie_beyond_all_files_are_refused(modules: Page, tmp_path: Path) -> None:
    save_nifti(tmp_path / "scan.nii", mri().astype(np.int16))
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    data[108:112] = np.float32(1e20).tobytes()
    (tmp_path / "scan.nii").write_bytes(data)
    line = read(modules, tmp_path / "scan.nii")["text"]
    assert line.startswith("scan.nii: the header is damaged (vox_offset 1")


@pytest.mark.parametrize("thickness", [3, 90])
def test_a_large_background_without_values_is_filled(
    thickness: int, modules: Page, tmp_path: Path
) -> None:
    values = mri((96, 96, thickness)).astype(np.float32)
    x, y = np.meshgrid(np.arange(96) - 48, np.arange(96) - 48, indexing="ij")
    values[x**2 + y**2 > 30**2] = np.nan
    save_nifti(tmp_path / "scan.nii", values)
    agree(read(modules, tmp_path / "scan.nii"), tmp_path / "scan.nii", tmp_path)


GONE = """async file => {
    const { unpacked } = await import("/gzip.js");
    const whole = fileOf(file);
    let gone = false;
    const slice = (first, last) => ({ arrayBuffer: async () => {
        if (gone) throw new DOMException("it has changed", "NotReadableError");
        return whole.slice(first, last).arrayBuffer();
    } });
    const stream = () => new ReadableStream({ pull(controller) {
        gone = true; // as browsers say it of a stream, whatever the reason
        controller.error(new TypeError("network error"));
    } });
    const odd = { name: whole.name, size: whole.size, slice, stream };
    return unpacked(odd, 540, () => 1000, []).then(() => "read", (error) => error.name);
}"""


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_goes_while_it_is_read_is_not_called_damaged(
    suffix: str, modules: Page, tmp_path: Path
) -> None:
    save_nifti(tmp_path / f"scan{suffix}", mri().astype(np.int16))
    assert modules.evaluate(GONE, given(tmp_path / f"scan{suffix}")) == "NotReadableError"


def test_a_pair_says_what_to_give(modules: Page, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(mri().astype(np.int16), AFFINE), tmp_path / "scan.img")
    assert "give a single .nii" in read(modules, tmp_path / "scan.hdr")["text"]
