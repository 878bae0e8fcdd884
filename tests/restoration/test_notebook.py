"""What a notebook shows of a restored scan."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from restore_rwkv.io import Source, Volume, read_volume
from restore_rwkv.restoration import Restored, RestoreOptions, Restorer
from restore_rwkv.restoration.thumbnail import thumbnail, thumbnail_texts
from restore_rwkv.tasks import NOTICE

ATTACK = "<script>alert('x')</script>"


@pytest.fixture
def restored(scan: Path, tiny_weights: Path) -> Restored:
    return Restorer("mri-sr", tiny_weights, "cpu").run(read_volume(scan))


def shown(restored: Restored) -> str:
    html = restored._repr_html_()
    assert html is not None
    return html


def text_of(html: str) -> str:
    """The text of a page, with single spaces."""
    parts: list[str] = []

    class _Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            parts.append(data)

    _Texts().feed(html)
    return " ".join(" ".join(parts).split())


def test_it_says_what_was_done_and_what_the_values_are(restored: Restored) -> None:
    text, record = text_of(shown(restored)), restored.record
    kept = record.kept
    assert kept is not None
    assert f"Restored for mri-sr with {Path(record.weights).stem} at 100 % strength" in text
    assert f"block of {kept[0]} x {kept[1]} samples of k-space was kept" in text
    low, high = restored.volume.data.min(), restored.volume.data.max()
    assert f"{low:.4g} to {high:.4g} a.u." in text
    assert " x ".join(map(str, restored.volume.data.shape)) in text
    assert text.endswith(NOTICE)


def test_the_picture_is_that_of_the_overview_of_the_middle_slice(restored: Restored) -> None:
    assert restored.before is not None
    axis = restored.record.slice_axis
    middle = restored.before.data.shape[axis] // 2
    found = re.search(r'src="data:image/png;base64,([^"]+)"', shown(restored))
    assert found is not None
    png = base64.b64decode(found[1], validate=True)
    expected = thumbnail(restored.before, restored.volume, axis, "MR", index=middle, side=240)
    assert png == expected
    Image.open(BytesIO(png)).verify()
    assert f"Middle {thumbnail_texts(png)['slice']}" in text_of(shown(restored))


def test_before_is_the_input_and_a_finer_grid_is_that_of_the_result(
    scan: Path, tiny_weights: Path, restored: Restored
) -> None:
    volume = read_volume(scan)
    assert restored.before is not None
    assert np.array_equal(restored.before.data, volume.data)
    options = RestoreOptions(scale=2)
    finer = Restorer("mri-sr", tiny_weights, "cpu").run(volume, options)
    assert finer.before is not None
    assert finer.before.data.shape == finer.volume.data.shape
    assert "<img" in shown(finer)


def test_of_a_file_there_is_no_picture(scan: Path, tiny_weights: Path, tmp_path: Path) -> None:
    made = Restorer("mri-sr", tiny_weights, "cpu").file(scan, tmp_path / "out.nii.gz")
    assert made.before is None
    assert "<img" not in shown(made)
    assert "Restored for mri-sr" in shown(made)


def test_what_was_found_in_a_file_is_said_once(tiny_weights: Path, tmp_path: Path) -> None:
    labels = np.repeat(np.repeat(np.arange(36).reshape(6, 6, 1), 9, 0), 9, 1).astype(np.int16)
    path = tmp_path / "labels.nii"
    nib.save(nib.Nifti1Image(labels, np.diag([-1.0, 1, 3, 1])), path)
    restorer, options = Restorer("mri-sr", tiny_weights, "cpu"), RestoreOptions(force=True)
    of_file = restorer.file(path, tmp_path / "out.nii", options)
    for made in (of_file, restorer.run(read_volume(path), options)):
        (finding,) = made.record.fit.findings
        assert text_of(shown(made)).count(finding.text) == 1


def test_noise_in_every_pixel_stays_below_200_kb(restored: Restored) -> None:
    noise = np.random.default_rng(0).uniform(0, 1, (2, 300, 300, 1)).astype(np.float32)
    before, after = (Volume(each, modality="PT", unit="SUV") for each in noise)
    record = dataclasses.replace(restored.record, modality="PT", unit="SUV", slice_axis=2)
    assert len(shown(Restored(after, record, before))) < 200_000


def test_every_text_is_escaped(restored: Restored) -> None:
    record = dataclasses.replace(
        restored.record,
        task=ATTACK,
        weights=ATTACK,
        unit=ATTACK,
        device=ATTACK,
        notice=ATTACK,
        warnings=(ATTACK, "\u202eevil"),
    )
    html = shown(dataclasses.replace(restored, record=record))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert "\u202e" not in html


def test_it_takes_its_colours_from_the_page_and_loads_nothing(restored: Restored) -> None:
    html = shown(restored)
    assert not re.search(r"https?:|url\(|<script|<link|<style", html)
    assert set(re.findall(r"(?<![-\w])color: ([^;\"]+)", html)) == {"inherit"}
    assert set(re.findall(r"background: ([^;\"]+)", html)) == {"none"}


@pytest.mark.parametrize("field", ["record", "volume"])
def test_it_never_raises(restored: Restored, field: str) -> None:
    broken = dataclasses.replace(restored, **{field: None})
    assert broken._repr_html_() is None


def test_a_picture_that_fails_leaves_the_words(
    restored: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object, **_more: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("restore_rwkv.restoration.thumbnail.thumbnail", fails)
    html = shown(restored)
    assert "<img" not in html
    assert NOTICE in html


def test_the_text_form_is_short_and_without_a_path(restored: Restored) -> None:
    source = Source(Path("/scans/jane/t1.nii.gz"), restored.volume.data.shape, None)
    volume = dataclasses.replace(restored.volume, source=source)
    text = repr(dataclasses.replace(restored, volume=volume))
    assert "/scans" not in text
    assert "t1.nii.gz" in text
    assert len(text) < 120
