"""The page of a restored image's report: what it says, whatever names hold, and what it keeps."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_rwkv.evaluation.fidelity import words
from restore_rwkv.evaluation.fidelity.crops import pictures_of
from restore_rwkv.evaluation.fidelity.display import (
    EDGE,
    UNSIGNED,
    display_of,
    limit_of_map,
    overlaid,
)
from restore_rwkv.evaluation.fidelity.page import write_fidelity_page
from restore_rwkv.evaluation.fidelity.results import Fidelity
from restore_rwkv.evaluation.fidelity.slices import kept_slices, reason
from restore_rwkv.evaluation.report.images import COLD, WARM, StoredSlices
from restore_rwkv.tasks import NOTICE
from tests.helpers import ROOT
from tests.helpers.fidelities import calibration, ct, hostile, mri, pet, unknown
from tests.helpers.overviews import HOSTILE
from tests.helpers.pages import Contrast, Page, decoded

MADE = {"ct": ct, "mri": mri, "pet": pet, "unknown": unknown}


def written(folder: Path, of: Fidelity) -> Page:
    write_fidelity_page(of, folder / "fidelity.html")
    return Page(folder / "fidelity.html")


# What the page says.


@pytest.mark.parametrize("name", MADE)
def test_verdict_places_figures_and_maps_are_said_in_words(tmp_path: Path, name: str) -> None:
    made = MADE[name]()
    page = written(tmp_path, made)
    expected = [NOTICE, made.verdict, made.places_by, made.pair.after.name, made.pair.task.name]
    expected += [words.HEADLINES[made.support]]
    for figure in made.figures:
        expected += [figure.title, words.value_of(figure.value, figure.unit), figure.expected]
        expected += [words.MARKS[figure.support], figure.says, figure.blind_to, figure.reason]
    for shown in made.maps:
        expected += [shown.title, shown.meaning, shown.blind_to]
    for place in made.places:
        expected += [place.says, ", ".join(map(str, place.index)), words.position(place)]
    for each in expected:
        assert " ".join(each.split()) in page.words, each
    assert len(page.all("img")) == 5 * len(made.places) + len(made.maps)
    assert page.all("html")[0]["lang"] == "en"


def test_provenance_time_and_software_are_kept(tmp_path: Path) -> None:
    page = written(tmp_path, ct())
    for expected in ("ab" * 32, "restore-rwkv restore chest.nii.gz --report", "2.13.0", "12.3 s",
                     "96 \u00d7 80 \u00d7 12 voxels of 2 \u00d7 2.2 \u00d7 5 mm",
                     "restore-rwkv 0", "by light-ct-denoise", "4 times less was measured",
                     "the kernel is sharp"):  # fmt: skip
        assert expected in page.words, expected


def test_support_is_told_by_shape_and_word_and_not_by_colour_only(tmp_path: Path) -> None:
    write_fidelity_page(ct(), tmp_path / "fidelity.html")
    text = (tmp_path / "fidelity.html").read_text("utf-8")
    marks = dict(re.findall(r'<svg class="mark (\w+)".*?>\n(.*?)\n', text))
    assert set(marks) == {"look", "supported", "unsupported", "unknown"}
    assert len(set(marks.values())) == 4
    assert len(set(words.MARKS.values())) == len(set(words.HEADLINES.values())) == 4


def test_a_place_has_its_crops_score_flag_and_position(tmp_path: Path) -> None:
    made = ct()
    page = written(tmp_path, made)
    assert made.places[0].flagged
    assert "Removed, score +" in page.words
    assert "flagged: beyond ±3.5" in page.words
    assert "not flagged: within ±3.5" in page.words
    assert "R 35.0, P 27.4, S 5.0 mm" in page.words
    names = [image["alt"] for image in page.all("img")][:5]
    assert names == [
        "before, around place 1",
        "restored, around place 1",
        "restored − before, around place 1",  # noqa: RUF001
        "structure removed or added, around place 1",
        "Slice 7 with a box around place 1",
    ]
    assert "no threshold is known" in written(tmp_path, mri()).words


def test_what_the_report_cannot_see_has_each_sentence_once() -> None:
    made = ct()
    found = words.unseen(dataclasses.replace(made, figures=(*made.figures, made.figures[0])))
    sentences = [sentence for _, sentence in found]
    assert len(set(sentences)) == len(sentences)
    assert {f.blind_to for f in made.figures} | {m.blind_to for m in made.maps} < set(sentences)
    assert found[0] == ("", sentences[0])
    assert "truth is not known" in sentences[0]


def test_intervals_say_their_calibration_and_what_they_cannot_see(tmp_path: Path) -> None:
    page = written(tmp_path, ct())
    beside = re.search(r"half width of the 90 % interval The truth.*?89\.3\s%", page.words)
    assert beside is not None
    assert "A bias that all samples share is invisible" in beside[0]
    assert "90 % of the pixels, on 12 validation subjects" in beside[0]
    made = ct()
    without = dataclasses.replace(made, pair=dataclasses.replace(made.pair, calibration=None))
    assert "no calibration of these intervals" in written(tmp_path, without).words
    other = dataclasses.replace(calibration().intervals[0], method="bootstrap")
    only = dataclasses.replace(calibration(), intervals=(other,))
    pair = dataclasses.replace(made.pair, calibration=only)
    assert "no calibration" in words.calibration_of(made.maps[1], pair)


def test_nothing_measured_is_a_page_too(tmp_path: Path) -> None:
    page = written(tmp_path, unknown())
    assert "No place to look at" in page.words
    assert "its geometry is not known" not in page.words  # said with the places
    assert "The maps" not in page.words
    assert "not judged" in page.words
    empty = dataclasses.replace(unknown(), figures=(), places_by="")
    assert "No figure could be measured." in written(tmp_path, empty).words


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (None, "HU", "—"),
        (float("nan"), "HU", "—"),
        (0.0, "HU", "0\xa0HU"),
        (-0.708, "HU", "−0.708\xa0HU"),  # noqa: RUF001
        (0.0025, "", "0.0025"),
        (1234.6, "", "1,235"),
        (99.96, "%", "100\xa0%"),
        (100.0, "%", "100\xa0%"),
        (3e-9, "", "3.00e−09"),  # noqa: RUF001
    ],
)
def test_figures_have_three_digits(value: float | None, unit: str, expected: str) -> None:
    assert words.value_of(value, unit) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [({"weights": "a"}, "a"), ({"weights": {"name": "b", "sha256": "c"}}, "b"),
     ({"weights": {"d": {}}}, "d"), ({"weights": ["e"]}, ""), ({"weights": {}}, ""), ({}, "")],
)  # fmt: skip
def test_weights_are_named_from_the_provenance(found: dict[str, Any], expected: str) -> None:
    assert words.weights_of(found) == expected


# Whatever names hold.


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_names_and_sentences_are_text_and_never_elements(tmp_path: Path, text: str) -> None:
    name = text.replace("/", "|")  # what a file can be called
    page, usual = written(tmp_path, hostile(name)), written(tmp_path, hostile("usual"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in usual.elements]
    assert [set(values) for _, values in page.elements] == [
        set(values) for _, values in usual.elements
    ]
    assert page.text.count(name) == usual.text.count("usual") > 30


def test_marks_that_turn_the_direction_of_writing_are_escaped(tmp_path: Path) -> None:
    page = written(tmp_path, hostile("a\u202egnp.exe\u2066\x00\udce9"))
    assert "a\\u202egnp.exe\\u2066\\x00\\udce9" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", page.text)


def test_a_page_allows_its_own_style_and_script_and_asks_for_nothing(tmp_path: Path) -> None:
    written(tmp_path, ct()).check_needs_nothing()


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_marks_stand_out_as_wcag_asks(scheme: int) -> None:
    folder = ROOT / "src" / "restore_rwkv" / "evaluation"
    styles = [(folder / room / "page.css").read_text("utf-8") for room in ("report", "fidelity")]
    contrast = Contrast(scheme, *styles)
    for text in ("good", "look", "bad", "even", "muted", "text"):
        assert all(contrast(text, behind) >= 4.5 for behind in ("page", "card")), text
    assert all(contrast("on", plate) >= 4.5 for plate in ("good", "look", "bad", "even"))
    assert contrast("violet", "page") >= 3


def test_identifiers_are_unique_and_references_lead_somewhere(tmp_path: Path) -> None:
    page = written(tmp_path, ct())
    names = [values["id"] for _, values in page.elements if "id" in values]
    assert len(set(names)) == len(names)
    for _, values in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert values.get(name, names[0]) in names
        if values.get("href", "").startswith("#"):
            assert values["href"][1:] in names
    assert all(image["alt"] for image in page.all("img"))


def test_equal_reports_give_equal_bytes_and_a_page_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fidelity.html"
    write_fidelity_page(ct(), path)
    first = path.read_bytes()
    write_fidelity_page(ct(), path)
    assert path.read_bytes() == first

    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left.*fidelity\.html"):
        write_fidelity_page(mri(), path)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["fidelity.html"]


# How images are shown.


@pytest.mark.parametrize("name", ["ct", "mri", "pet"])
def test_a_place_is_marked_where_its_voxel_is_displayed(name: str) -> None:
    made = MADE[name]()
    display = display_of(made.pair)
    for place in made.places:
        shown = display.shown(made.pair.after, place.slice)
        row, column = display.place(place)
        assert shown[row, column] == made.pair.after.data[place.index]
        pictures = pictures_of(place, display, made.maps[0])
        left, top, wide, high = pictures.locator.marks
        down, across = display.spacing
        x, y, radius = pictures.crops[0].marks
        assert (left + x, top + y) == pytest.approx(((column + 0.5) * across, (row + 0.5) * down))
        assert 0 < x < wide
        assert 0 < y < high
        assert radius > 0
        assert len(pictures.crops) == 4


def test_a_place_is_shown_at_the_first_window_that_holds_its_values() -> None:
    display = display_of(ct().pair)
    assert display.window_for(40.0, 60.0) == "soft tissue"
    assert display.window_for(-800.0, -500.0) == "lung"
    assert display.window_for(40.0, 420.0) == "bone"
    assert display.window_for(-800.0, 900.0) == "soft tissue"


def test_colours_of_a_map_follow_its_sign_and_a_line_its_threshold() -> None:
    shown = ct().maps[0]  # limit 6, threshold 3.5
    image = np.zeros((9, 9), np.float32)
    values = np.zeros_like(image)
    values[1:6, 1:6], values[8, 8] = 6.0, -3.0
    found = overlaid(image, values, window=(0.0, 1.0), of=shown)
    np.testing.assert_allclose(found[3, 3], 0.85 * WARM, atol=1)
    np.testing.assert_allclose(found[8, 8], 0.85 * 0.5 * COLD, atol=1)
    assert (found[1, 1:6] == EDGE).all()
    assert (found[2:5, 2:5] != EDGE).any(axis=-1).all()
    assert (found[7, 1] == 0).all()
    half = overlaid(image + 1, values, window=(0.0, 1.0), of=ct().maps[1])  # unsigned, to 50
    np.testing.assert_allclose(half[3, 3], 255 - 0.85 * 0.12 * (255 - UNSIGNED), atol=1)
    assert (half[8, 8] == 255).all()


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
def test_a_map_without_a_usable_limit_can_be_shown(tmp_path: Path, limit: float) -> None:
    made = ct()
    maps = tuple(dataclasses.replace(each, limit=limit) for each in made.maps)
    assert limit_of_map(maps[0]) == 1.0
    assert written(tmp_path, dataclasses.replace(made, maps=maps)).all("img")


@pytest.mark.parametrize("shape", [(96, 80, 1), (7, 5, 2), (1, 1, 1)])
def test_small_images_have_a_page(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    page = written(tmp_path, ct(shape=shape, places=1, spread=False))
    assert len(page.all("img")) == 6
    assert len([name for name in page.data if name.startswith("panel")]) == shape[2]


# What the page keeps.


def test_kept_values_are_those_of_the_images_and_maps_within_half_a_step(tmp_path: Path) -> None:
    made = ct()
    page = written(tmp_path, made)
    data = json.loads(zlib.decompress(b64decode(page.data["data"])))
    display = display_of(made.pair)
    assert [panel["slice"] for panel in data["panels"]] == list(range(12))
    panel = data["panels"][7]
    texts = page.data["panel-7"].split()
    shape = tuple(panel["shape"])
    before = decoded(texts[0], shape)
    codes = [before, decoded(texts[1], shape, before), *(decoded(t, shape) for t in texts[2:])]
    volumes = [made.pair.before, made.pair.after, *(each.volume for each in made.maps)]
    scales = [panel["scale"], panel["scale"], *panel["mapScales"]]
    steps = (2.5, 2.5, 0.05, 0.3)
    for found, volume, scale, most in zip(codes, volumes, scales, steps, strict=True):
        values = StoredSlices((), tuple(map(tuple, scale))).values
        assert np.abs(values[found] - display.shown(volume, 7)).max() <= most
    assert panel["rings"][0] == [1, *display.place(made.places[0])]


def test_the_slices_of_places_come_first_and_the_page_says_how_many_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ct(shape=(48, 40, 60))
    display = display_of(made.pair)
    kept = [each.index for each in kept_slices(made, display)]
    assert kept == sorted(set(kept))
    assert {place.slice for place in made.places} < set(kept)
    assert len(kept) == 24
    assert max(np.diff([-1, *kept, 60])) <= 6
    assert f"{len(kept)} of 60 slices" in written(tmp_path, made).words
    assert reason(made, made.places[0].slice).startswith("Place")
    size = len(kept_slices(made, display)[0].text)
    monkeypatch.setattr("restore_rwkv.evaluation.fidelity.slices._BUDGET", 2.5 * size)
    few = [each.index for each in kept_slices(made, display)]
    assert made.places[0].slice in few
    assert len(few) == 2
    page = written(tmp_path, made)
    assert len([b for b in page.all("button") if b.get("class") == "show"]) < len(made.places)
    monkeypatch.setattr("restore_rwkv.evaluation.fidelity.slices._BUDGET", 1)
    assert len(kept_slices(made, display)) == 1


@pytest.mark.slow
def test_a_page_of_large_noisy_slices_has_less_than_6_mb(tmp_path: Path) -> None:
    write_fidelity_page(ct(shape=(512, 512, 30)), tmp_path / "fidelity.html")
    size = (tmp_path / "fidelity.html").stat().st_size
    assert 3_000_000 < size < 6_000_000
