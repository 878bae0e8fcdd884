"""The tables of what a derived series changes, against derived series of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from restore_rwkv.io import DicomSource, read_volume
from restore_rwkv.io.dicom import write_dicom
from restore_rwkv.io.dicom.changes import ADDED, CHANGED, DROPPED, HOLDS, KEPT, Change, Kind
from restore_rwkv.io.dicom.derived import Derivation
from restore_rwkv.io.volume import same_field_of_view
from tests.helpers.derivable_series import KINDS, classic, of, save, write_source
from tests.helpers.derivable_series import Kind as Name

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_REPLACED = ("DerivationImageSequence", "RealWorldValueMappingSequence", "FrameAnatomySequence")
_NESTED_DROPPED = ("FrameDisplayShutterSequence",)


def _fill(image: Dataset) -> None:
    """Add every attribute that is dropped, and some of those that are replaced, with any value."""
    for change in DROPPED:
        if change.keyword in image or change.keyword in _NESTED_DROPPED:
            continue
        vr = dictionary_VR(change.keyword)
        value = {"SQ": [of(CodeValue="1")], "UI": "1.2.3", "AE": "AE", "CS": "NO"}.get(vr)
        number = {"UL": 1, "US": 1, "UV": 1, "IS": 1, "OV": bytes(8), "OB": bytes(2)}.get(vr)
        text = {"UR": "http://archive", "DS": [1, 1], "SH": "x", "LO": "x"}.get(vr, number)
        vr = "US" if vr == "US or SS" else vr
        image.add_new(change.keyword, vr, value or text or 1)
    image.InConcatenationTotalNumber = 1
    image.LossyImageCompression, image.LossyImageCompressionMethod = "01", "ISO_10918_1"
    image.LossyImageCompressionRatio = "7"
    image.DerivationDescription = "older"
    image.InstanceCreationDate = "20240102"
    image.add_new(0x00090010, "LO", "VENDOR")
    image.add_new(0x00091001, "LO", "private")
    groups = image.get("SharedFunctionalGroupsSequence")
    if groups:
        groups[0].FrameDisplayShutterSequence = [of(ShutterShape="CIRCULAR")]


def _flat(image: Dataset) -> dict[str, list[str]]:
    """Values by keyword, with those of the items of functional groups."""
    found: dict[str, list[str]] = {}
    for keyword, value in _values(image):
        found.setdefault(keyword, []).append(value)
    return found


def _values(image: Dataset) -> Iterator[tuple[str, str]]:
    for element in image:
        if element.keyword not in _GROUPS:
            yield element.keyword or "private", str(element.value)
            continue
        for group in element.value:
            for inner in group:
                if inner.keyword in (*_REPLACED, *_NESTED_DROPPED):
                    yield inner.keyword, str(inner.value)
                    continue
                for item in inner.value:
                    for leaf in item:
                        yield leaf.keyword, str(leaf.value)


def _derived(folder: Path, name: Name, *, finer: bool) -> tuple[list[Dataset], list[Dataset]]:
    """Headers of a source and of a series that is derived from it."""
    volume = read_volume(write_source(folder / "source", name, _fill))
    assert isinstance(volume.source, DicomSource)
    sources = [pydicom.dcmread(path) for path in volume.source.files]
    if finer:
        assert volume.affine is not None
        data = volume.data.repeat(2, 0).repeat(2, 1) + 1
        affine = same_field_of_view(volume.affine, volume.data.shape, data.shape)
        volume = volume.resampled(data, affine)
    else:
        volume = volume.with_data(volume.data + 1)
    derivation = Derivation(
        task="mri-sr", description="done", weights="w", weights_sha256="ab", notice="no device"
    )
    (folder / "derived").mkdir()
    written = write_dicom(volume, folder / "derived", derivation)
    return sources, [pydicom.dcmread(folder / "derived" / file) for file in written.files]


def _of(changes: tuple[Change, ...], kind: Kind) -> set[str]:
    return {change.keyword for change in changes if HOLDS[change.scope](kind)}


@pytest.mark.parametrize("finer", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_the_tables_say_what_becomes_of_every_attribute(
    tmp_path: Path, name: Name, finer: bool
) -> None:
    sources, results = _derived(tmp_path, name, finer=finer)
    kind = Kind(
        modality=name.removeprefix("enhanced "),
        enhanced=name.startswith("enhanced"),
        finer=finer,
        lossy=False,
    )
    added, changed = _of(ADDED, kind), _of(CHANGED, kind)
    dropped, kept = _of(DROPPED, kind), _of(KEPT, kind)
    assert not (added | changed) & (dropped | kept)
    for source, result in zip(map(_flat, sources), map(_flat, results), strict=True):
        assert added <= result.keys()
        assert all(source.get(keyword) != result[keyword] for keyword in added)
        assert not dropped & result.keys()
        assert dropped <= source.keys() | {"private"}
        assert {k for k in kept & source.keys() if source[k] != result.get(k)} == set()
        # The tables leave nothing out.
        assert result.keys() - source.keys() <= added
        assert source.keys() - result.keys() <= dropped | {"private"}
        differing = {k for k in source.keys() & result.keys() if source[k] != result[k]}
        assert differing <= added | changed


def test_every_attribute_that_changes_changes_in_some_series(tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for number, name in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        sources, results = _derived(folder, name, finer=True)
        kind = Kind(
            modality=name.removeprefix("enhanced "),
            enhanced=name.startswith("enhanced"),
            finer=True,
            lossy=False,
        )
        for source, result in zip(map(_flat, sources), map(_flat, results), strict=True):
            seen |= {
                (change.keyword, change.scope)
                for change in CHANGED
                if HOLDS[change.scope](kind)
                and source.get(change.keyword) != result.get(change.keyword)
            }
    # These have the value of the source where nothing is wrong with it.
    same = {("InstanceNumber", "classic"), ("HighBit", "all")}
    assert {(change.keyword, change.scope) for change in CHANGED} - seen <= same


def test_a_source_compressed_with_loss_says_so_for_ever(tmp_path: Path) -> None:
    from restore_rwkv.io.dicom.encoding import mark_lossy

    image, path = classic("CT", 0), tmp_path / "source.dcm"
    save(image, path)
    before = set(image.dir())
    mark_lossy(image, "1.2.840.10008.1.2.4.51", path)
    lossy = Kind(modality="CT", enhanced=False, finer=False, lossy=True)
    plain = Kind(modality="CT", enhanced=False, finer=False, lossy=False)
    assert set(image.dir()) - before == _of(ADDED, lossy) - _of(ADDED, plain)
