"""The report of an evaluation: what it says, whatever names hold, and the images that it keeps."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from restore_rwkv.evaluation.report.charts import box_plot, line_chart, round_values
from restore_rwkv.evaluation.report.images import (
    Codes,
    StoredSlices,
    difference_limit,
    encode,
    pictures,
    store_slices,
    text_of,
)
from restore_rwkv.evaluation.report.page import write_report
from restore_rwkv.evaluation.report.tables import gains, reasons, worst_shown
from restore_rwkv.evaluation.report.words import Figures, number, p_value, verdict
from restore_rwkv.evaluation.study.results import Study
from tests.helpers import ROOT
from tests.helpers.overviews import HOSTILE
from tests.helpers.pages import Contrast, Page, decoded
from tests.helpers.studies import MEASURES, SLICES, TASK, panel, study


def written(folder: Path, of: Study) -> Page:
    write_report(of, folder / "report.html")
    return Page(folder / "report.html")


# What the page says.


def test_the_page_has_a_verdict_every_table_and_its_provenance(tmp_path: Path) -> None:
    page = written(tmp_path, study())
    assert "unet gains +2.49 dB PSNR over the input." in page.words
    for expected in (
        "Not a medical device",
        "8 patients, 48 slices of the test split.",
        "PSNR (paper protocol)",
        "Mean shift, soft tissue",
        "ab" * 32,
        "restore-rwkv evaluate --weights light",
        "2.13.0",
        "slice 5: the truth is constant",
        "lowest PSNR of the first method, 24.31 dB",
        "differ",
    ):
        assert expected in page.words, expected
    assert len(page.all("img")) == 2 + 2 * 4  # beside the verdict, and of each panel
    assert page.all("html")[0]["lang"] == "en"


def test_every_figure_of_the_summaries_is_in_the_tables(tmp_path: Path) -> None:
    made = study()
    page = written(tmp_path, made)
    figures = Figures(made)
    for summary in made.summaries:
        measure = figures.measures[summary.measure]
        assert number(summary.mean, figures.decimals(TASK, measure)) in page.text
        assert number(summary.low, figures.decimals(TASK, measure)) in page.text


def test_a_method_worse_than_the_input_is_said_first() -> None:
    found = verdict(Figures(study({"light": 2.5, "blur": -1.0})), TASK)
    assert found.tone == "worse"
    assert found.headline.startswith(
        "On 8 patients, blur is worse than the input; light gains +2.4"
    )
    assert found.sentences[0].startswith("blur is worse than the input: \u2212")
    assert found.sentences[1].startswith("light is better than the input: +2.")


def test_methods_that_no_test_tells_apart_are_called_tied() -> None:
    tied = study(p_holm={("unet", "light"): 0.4})
    found = verdict(Figures(tied), TASK)
    assert found.headline.endswith(" over the input, not told apart from light.")
    assert "unet and light cannot be told apart by PSNR." in found.sentences
    assert "cannot be told apart" not in " ".join(verdict(Figures(study()), TASK).sentences)


def test_no_difference_from_the_input_is_no_gain() -> None:
    found = verdict(Figures(study({"light": 0.4}, p_holm={("light", "input"): 0.3})), TASK)
    assert (found.tone, found.headline) == (
        "undecided",
        "On 8 patients, light: no difference from the input is shown.",
    )
    assert "is not shown to differ from the input: +0." in found.sentences[0]


def test_what_no_test_confirms_is_said_to_be_so() -> None:
    made = study({"light": 1.0, "blur": -1.0})
    weak = tuple(dataclasses.replace(test, p=0.25, p_holm=0.75) for test in made.tests)
    found = verdict(Figures(dataclasses.replace(made, tests=weak)), TASK)
    assert found.tone == "worse"
    assert re.fullmatch(
        "On 8 patients, blur is below the input, which no test confirms; light gains "
        r"\+\d\.\d\d dB PSNR over the input, which no test confirms\.",
        found.headline,
    )


def test_a_verdict_stands_beside_the_slice_where_its_method_is_worst(tmp_path: Path) -> None:
    made = study()
    worst, words = worst_shown(made, Figures(made), TASK, "unet") or (-1, "")
    psnr = {s.slice: s.values["psnr"] for s in made.scores if s.scan == "p0-scan"}
    assert psnr
    assert made.panels[worst].slice in (1, 3)
    assert words.startswith(("Where unet is worst: p0-scan", "Of the slices shown, where unet is"))
    assert words in written(tmp_path, made).words
    assert worst_shown(made, Figures(made), TASK, "input") is None
    assert worst_shown(dataclasses.replace(made, panels=()), Figures(made), TASK, "unet") is None


def test_what_is_not_tested_is_neither_better_nor_best() -> None:
    made = study({"light": 1.0}, patients=3)
    untested = tuple(dataclasses.replace(test, p=None, p_holm=None) for test in made.tests)
    figures = Figures(dataclasses.replace(made, tests=untested))
    found = verdict(figures, TASK)
    assert found.tone == "undecided"
    assert "over the input, on too few patients for a test." in found.headline
    assert figures.distinct_best(TASK, MEASURES[0]) is None
    assert "told apart" not in " ".join(found.sentences)


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (1, "One patient says nothing about others"),
        (2, "Patients are too few for a test, and intervals of 2 patients are too narrow"),
        (8, "Intervals of 8 patients are too narrow: about 85 %"),
        (12, ""),
    ],
)
def test_few_patients_are_named_as_a_limit(patients: int, expected: str) -> None:
    made = study(patients=patients, of="slices" if patients == 1 else "patients")
    sentences = " ".join(verdict(Figures(made), TASK).sentences)
    assert expected in sentences
    assert ("too narrow" in sentences) == (patients in (2, 8))


def test_the_best_is_marked_only_where_it_is_told_apart_from_all_others() -> None:
    psnr, _, rmse, shift = MEASURES
    clear = Figures(study({"light": 2.5, "unet": 1.0}))
    found = clear.distinct_best(TASK, psnr), clear.distinct_best(TASK, rmse)
    assert [each.first for each in found if each] == ["light", "light"]
    assert clear.distinct_best(TASK, shift) is None  # signs of differences say nothing there
    tied = Figures(study({"light": 2.5, "unet": 2.4}, p_holm={("unet", "light"): 0.4}))
    assert tied.distinct_best(TASK, psnr) is None


def test_gains_are_positive_where_a_method_is_better_by_any_measure() -> None:
    made = study({"light": 2.5})
    for measure in MEASURES:
        found = gains(made, TASK, measure)
        assert set(found) == {"light"}
        assert all(value > 0 for values in found["light"].values() for value in values)
    assert len(gains(made, TASK, MEASURES[0])["light"]["p0"]) == SLICES - 1
    assert len(gains(made, TASK, MEASURES[2])["light"]["p0"]) == SLICES


def test_reasons_of_many_slices_are_one_line_and_very_many_lines_are_cut() -> None:
    made = study()
    first = made.scores[0]
    bad = [
        dataclasses.replace(first, scan=f"s{n // 40}", slice=n % 40, reasons={"psnr": "constant"})
        for n in range(300 * 40)
    ]
    lines = reasons(dataclasses.replace(made, scores=tuple(bad)), TASK)
    assert lines[0] == "PSNR, input, s0, 40 slices from 0 to 39: constant"
    assert lines[-1] == "and 100 more"
    assert len(lines) == 201


def test_a_study_of_nothing_but_the_input_has_a_page(tmp_path: Path) -> None:
    page = written(tmp_path, study({}))
    assert "No method was scored." in page.words
    empty = dataclasses.replace(
        study({}), scores=(), summaries=(), tests=(), panels=(), spectra=(), sets={}
    )
    assert "Provenance" in written(tmp_path, empty).words


def test_numbers_have_true_minus_signs_and_nothing_is_negative_zero() -> None:
    assert number(-1.25, 1) == "\u22121.2"
    assert number(1234.5, 1, sign=True) == "+1,234.5"
    assert number(-0.001, 2, sign=True) == "0.00"
    assert number(None, 2) == number(float("nan"), 2) == "\u2014"
    assert [p_value(p) for p in (None, 0.0, 0.0123, 1.0)] == ["\u2014", "< 0.0001", "0.012", "1"]


# Whatever names hold.


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_reasons_and_records_are_text_and_never_elements(tmp_path: Path, name: str) -> None:
    def made(text: str, method: str) -> Study:
        scanned = study({method: 2.0}, scan=text, provenance={text: {text: [text]}})
        shown = panel(("input", method), scan=f"p0-{text}", why=text)
        return dataclasses.replace(scanned, panels=(shown,), sets={TASK: text})

    page, usual = written(tmp_path, made(name, name)), written(tmp_path, made("scan", "light"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in usual.elements]
    assert [set(values) for _, values in page.elements] == [
        set(values) for _, values in usual.elements
    ]
    assert page.text.count(name) >= 10


def test_marks_that_turn_the_direction_of_writing_are_escaped(tmp_path: Path) -> None:
    page = written(tmp_path, study({"a\u202egnp.exe": 2.0}, scan="b\u2066c\x00\udce9"))
    assert "a\\u202egnp.exe" in page.text
    assert "b\\u2066c\\x00\\udce9" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", page.text)


def test_a_page_allows_its_own_style_and_script_and_asks_for_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, study())
    page.check_needs_nothing()


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_stand_out_as_wcag_asks(scheme: int) -> None:
    style = (ROOT / "src" / "restore_rwkv" / "evaluation" / "report" / "page.css").read_text(
        "utf-8"
    )
    contrast = Contrast(scheme, style)

    for text in ("text", "muted", "link", "good", "bad", "even"):
        assert all(contrast(text, behind) >= 4.5 for behind in ("page", "card")), text
    assert contrast("muted", "soft") >= 4.5
    assert all(contrast("on", behind) >= 4.5 for behind in ("good", "link"))
    assert all(contrast(f"m{index}", "card") >= 3 for index in range(8))


def test_identifiers_are_unique_and_references_and_labels_lead_somewhere(tmp_path: Path) -> None:
    page = written(tmp_path, study())
    names = [values["id"] for _, values in page.elements if "id" in values]
    assert len(set(names)) == len(names)
    for _, values in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert values.get(name, names[0]) in names
        if values.get("href", "").startswith("#"):
            assert values["href"][1:] in names
    assert all(image["alt"] for image in page.all("img"))
    assert all("aria-label" in s or "aria-hidden" in s or "viewbox" in s for s in page.all("svg"))


def test_equal_studies_give_equal_bytes_and_a_report_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_report(study(), path)
    first = path.read_bytes()
    write_report(study(), path)
    assert path.read_bytes() == first

    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left.*report\.html"):
        write_report(study({"other": 1.0}), path)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


# The images that it keeps.


def test_kept_values_are_the_images_within_half_a_step(tmp_path: Path) -> None:
    made = study()
    page = written(tmp_path, made)
    data = json.loads(zlib.decompress(base64.b64decode(page.data["data"])))
    for index, (shown, told) in enumerate(zip(made.panels, data["panels"], strict=True)):
        scale = StoredSlices((), tuple(map(tuple, told["scale"])))
        steps = dict(zip([first for first, *_ in scale.scale], np.diff(scale.values), strict=False))
        assert steps
        texts = page.data[f"panel-{index}"].split()
        codes = None
        for text, image in zip(texts, [shown.truth, *shown.images.values()], strict=True):
            codes = decoded(text, image.shape, codes)
            apart = np.abs(scale.values[codes] - image)
            assert apart.max() <= 2.5  # HU, half of 1000 / 200 for lung and bone
            soft = (image > -159) & (image < 239)  # the first window
            assert soft.any()
            assert apart[soft].max() <= 1.0 + 1e-6


def test_steps_follow_the_windows_and_never_leave_a_gap() -> None:
    windows = {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0), "brain": (0.0, 80.0)}
    shown = dataclasses.replace(panel(("input",)), windows=windows)
    shown.truth[0, 0], shown.truth[0, 1] = -2000.0, 3000.0
    scale = store_slices(shown).scale
    steps = {first: step for first, step, _ in scale}
    assert (steps[-160.0], steps[0.0], steps[80.0], steps[-1350.0]) == (2.0, 1.0, 2.0, 5.0)
    values = store_slices(shown).values
    assert (np.diff(values) > 0).all()
    assert np.diff(values).max() <= 5.0


def test_similar_slices_take_little_more_than_one() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 500, (64, 64)).astype(np.uint16)
    second = (first + random.integers(0, 3, first.shape)).astype(np.uint16)
    assert len(encode(second, first)) < 0.5 * len(encode(second))


@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_any_codes_come_back_as_they_were(codes: Codes) -> None:
    shape = (codes.shape[0], codes.shape[1])
    np.testing.assert_array_equal(decoded(text_of(encode(codes)), shape), codes)
    for before in (codes, codes // 2, codes[::-1, ::-1].copy()):
        text = text_of(encode(codes, before))
        np.testing.assert_array_equal(decoded(text, shape, before), codes)


def test_values_that_are_not_finite_and_extreme_ones_are_kept(tmp_path: Path) -> None:
    shown = panel(("input", "light"))
    shown.truth[0, 0] = np.nan
    shown.images["input"][0, 1] = np.inf
    shown.images["light"][0, 2] = 3e7
    stored = store_slices(shown)
    codes: list[Codes] = []
    for text in stored.texts:
        codes.append(decoded(text, (96, 128), codes[-1] if codes else None))
    assert codes[0][0, 0] == codes[1][0, 1] == 65535
    assert stored.values[codes[2][0, 2]] == pytest.approx(3e7, abs=np.diff(stored.values).max())
    assert difference_limit(shown) == 200.0  # HU; the quantile does not see one pixel
    assert set(pictures(shown)) == {"input", "light", "truth", "difference"}


def test_a_constant_image_can_be_kept() -> None:
    shown = panel(("input",))
    for image in (shown.truth, shown.images["input"]):
        image[:] = 5.0
    stored = store_slices(shown)
    value = stored.values[decoded(stored.texts[0], (96, 128))[0, 0]]
    assert value == pytest.approx(5.0, abs=1.0)
    assert difference_limit(shown) > 0
    narrow = dataclasses.replace(shown, windows={"all": (5.0, 5.0)})
    assert (np.diff(store_slices(narrow).values) > 0).all()
    assert set(pictures(narrow)) == {"input", "truth", "difference"}


@pytest.mark.slow
def test_twelve_panels_of_noisy_slices_take_less_than_8_mb(tmp_path: Path) -> None:
    methods = ("input", "light")
    panels = [panel(methods, slice=index, shape=(512, 512), noise=30.0) for index in range(12)]
    written(tmp_path, study({"light": 2.0}, panels=panels))
    assert (tmp_path / "report.html").stat().st_size < 8_000_000


# Charts.


def test_boxes_hold_quartiles_whiskers_outliers_and_means_of_patients() -> None:
    plot = box_plot({"light": {"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 9.0]}})
    assert plot is not None
    (box,) = plot.boxes
    low, high = -0.36, 9.36  # from zero to the largest gain, and 4 % on both sides
    place = [round(100 * (value - low) / (high - low), 2) for value in (1, 2, 2, 2.75, 3, 9)]
    assert [box.low, box.first, box.median, box.third, box.high, *box.outliers] == place
    assert [name for _, _, name in box.dots] == ["a: +2.00", "b: +4.33"]
    assert box.words == "median +2.00, quartiles +2.00 and +2.75, all from +1.00 to +9.00, 6 values"
    assert box_plot({}) is None


def test_spectra_without_positive_power_are_left_out() -> None:
    across = np.array([0.1, 0.2, 0.3])
    chart = line_chart({"a": (across, np.array([10.0, 0.0, 1.0])), "b": (across, np.zeros(3))})
    assert chart is not None
    assert [curve.method for curve in chart.curves] == ["a"]
    assert chart.curves[0].path.count("L") == 1
    assert line_chart({"b": (across, np.zeros(3))}) is None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_axes_have_a_few_round_values_within_them(low: float, width: float) -> None:
    found = round_values(low, low + width, 5)
    assert len(found) <= 6
    assert all(low - 1e-6 * width <= v <= low + width * (1 + 1e-6) for v in found)
