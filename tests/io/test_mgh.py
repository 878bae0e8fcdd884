"""MGH: what FreeSurfer writes is read, damage is refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def packed(**edits: tuple[int, str, tuple[float, ...]]) -> bytes:
    """Return a sound file with some bytes of the header replaced: offset, format, values."""
    data = bytearray(nibabel.MGHImage(NUMBERS, np.diag([-1.0, 1.0, 2.0, 1.0])).to_bytes())
    for offset, kind, values in edits.values():
        struct.pack_into(">" + kind, data, offset, *values)
    return bytes(data)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.uint16])
@pytest.mark.parametrize("name", ["in.mgh", "in.mgz", "in.mgh.gz", "IN.MGZ"])
def test_all_types(tmp_path: Path, kind: type, name: str) -> None:
    data = nibabel.MGHImage(NUMBERS.astype(kind), np.eye(4)).to_bytes()
    (tmp_path / name).write_bytes(data if name.endswith("mgh") else gzip.compress(data))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.data, NUMBERS)
    assert volume.source is not None
    assert volume.source.stored is not None
    assert volume.source.stored.dtype.newbyteorder("=") == kind


def test_what_follows_the_voxels_is_not_the_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in.mgh").write_bytes(packed() + b"tags and history" * 99)
    np.testing.assert_array_equal(read_volume(tmp_path / "in.mgh").data, NUMBERS)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ((0, "i", (2,)), "not an MGH file"),
        ((4, "4i", (2, 3, 4, 2)), "4 axes"),
        ((4, "4i", (2, 0, 4, 1)), "no voxels"),
        ((4, "4i", (2, -3, 4, 1)), "no voxels"),
        ((4, "4i", (2, 3, 5_000, 1)), "holds less than"),
        ((4, "4i", (30_000, 30_000, 30_000, 1)), "holds less than"),
        ((20, "i", (5,)), "voxels of type 5"),
        ((28, "h", (0,)), "does not say where left and right are"),
        ((28, "h", (-1,)), "does not say where left and right are"),
        ((30, "f", (0.0,)), "singular"),
        ((30, "f", (1e9,)), "no scanner makes"),
        ((30, "f", (np.nan,)), "NaN"),
        ((42, "3f", (0, 0, 0)), "singular"),
        ((78, "f", (np.inf,)), "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("name", ["in.mgh", "in.mgz"])
def test_unusable_headers_are_refused(
    tmp_path: Path, edit: tuple[int, str, tuple[float, ...]], reason: str, name: str
) -> None:
    data = packed(edit=edit)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("z") else data)
    with pytest.raises(InputError, match=f"^{name}: .*{reason}"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("length", [3, 283, 284, 300])
@pytest.mark.parametrize("name", ["in.mgh", "in.mgz"])
def test_truncated_files_are_refused(tmp_path: Path, length: int, name: str) -> None:
    data = packed()[:length]
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("z") else data)
    with pytest.raises(InputError, match=f"^{name}: (not an MGH file|holds less)"):
        read_volume(tmp_path / name)
