"""Records: the identity of every kind of input, and the flat JSON that others read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from pydicom import dcmread

from restore_rwkv import Volume, read_volume
from restore_rwkv.io import DegradationRecord, OutputRecord, identify, record_text, record_values
from restore_rwkv.io.record import FORMAT
from tests.helpers.synthetic_series import SeriesWriter


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_known_by_its_digest(scan: Path) -> None:
    identity = identify(read_volume(scan))
    assert identity is not None
    assert (identity.source, identity.source_sha256) == (scan.name, sha(scan))
    assert identity.source_files == {scan.name: sha(scan)}
    assert identity.series_instance_uid is None
    assert identity.sop_instance_uids == ()


def test_an_array_has_no_identity() -> None:
    assert identify(Volume(np.ones((3, 4)))) is None


def test_a_series_is_known_by_its_files_and_uids(write_series: SeriesWriter) -> None:
    """Files that lie beside it are not part of it."""
    folder = write_series()
    (folder / "notes.txt").write_text("not an image")
    volume = read_volume(folder)
    identity = identify(volume)
    assert identity is not None
    files = sorted(folder.glob("*.dcm"))
    assert dict(identity.source_files) == {path.name: sha(path) for path in files}
    joined = "".join(sha(path) for path in files)
    assert identity.source_sha256 == hashlib.sha256(joined.encode()).hexdigest()
    headers = [dcmread(folder / name) for name in identity.source_files]
    assert identity.sop_instance_uids == tuple(h.SOPInstanceUID for h in headers)
    assert identity.series_instance_uid == headers[0].SeriesInstanceUID
    places = [float(header.ImagePositionPatient[2]) for header in headers]
    assert places == sorted(places)  # in the order of the volume's slices


def test_a_record_is_flat_json_with_its_format(tmp_path: Path, scan: Path) -> None:
    record = DegradationRecord(
        notice="n",
        modality="MR",
        unit=None,
        output=OutputRecord(output="o.nii.gz", output_sha256="0" * 64, output_files={}),
        made={"factor": 4},
        source=identify(read_volume(scan)),
    )
    (tmp_path / "r.json").write_text(record_text(record), encoding="utf-8")
    values = json.loads((tmp_path / "r.json").read_text())
    assert values == json.loads(json.dumps(record_values(record)))
    assert values["format"] == FORMAT == "restore-rwkv record 1"
    assert values["factor"] == 4
    assert values["source_sha256"] == sha(scan)
    assert values["software"].startswith("restore-rwkv ")
