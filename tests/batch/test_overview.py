"""The overview of a batch: every scan in words, whatever names and records hold."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import weakref
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore_rwkv.batch import Entry, Job, Manifest, Outcome, Summary
from restore_rwkv.batch.description import describe, duration, size, verdict
from restore_rwkv.batch.overview import write_overview
from restore_rwkv.io import ChangeRecord, FitRecord, RestorationRecord
from restore_rwkv.io.html import plain
from tests.helpers import ROOT
from tests.helpers.overviews import HOSTILE, RECORD, entry, picture, write

TEMPLATE = ROOT / "src" / "restore_rwkv" / "batch" / "overview.html"


class Page(HTMLParser):
    """Elements of a page: their names with their attributes, and all of its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.inside: list[str] = []
        self.of: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] in self.of:
            self.of[self.inside[-1]].append(data)
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_reasons_and_records_are_text_and_never_elements(tmp_path: Path, name: str) -> None:
    hostile = entry(
        name,
        "refused",
        kind=name,
        reason=name,
        record=RECORD | {"task": name, "warnings": [name], "device": name},
        thumbnail=picture(),
    )
    page = Page(write(tmp_path, [hostile]))
    usual = Page(write(tmp_path, [entry("t1.nii", "refused", kind="?", reason="r", record=RECORD,
                                        thumbnail=picture())]))  # fmt: skip
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in usual.elements]
    assert [set(values) for _, values in page.elements] == [
        set(values) for _, values in usual.elements
    ]
    assert page.text.count(name) >= 5
    assert name in page.all("img")[0]["alt"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u2066b\u200fc", "a\\u2066b\\u200fc"),
        ("caf\udce9.nii", "caf\\udce9.nii"),
        ("a\nb\0c\x1b[31m", "a\\nb\\x00c\\x1b[31m"),
        ("脳　MRI é אב می\u200cشود", "脳　MRI é אב می\u200cشود"),
    ],
    ids=["turned", "isolated", "not Unicode", "control", "other languages"],
)
def test_what_cannot_be_seen_in_a_name_is_escaped(tmp_path: Path, name: str, expected: str) -> None:
    assert plain(name) == expected
    assert expected in Page(write(tmp_path, [entry(name)])).text


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_text_becomes_unicode_without_marks_of_direction(text: str) -> None:
    shown = plain(text)
    shown.encode("utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x1f\x7f]", shown)


def test_very_long_names_and_reasons_are_cut_after_2000_characters(tmp_path: Path) -> None:
    text = Page(write(tmp_path, [entry("n" * 300, "failed", reason="r" * 10**6)])).text
    assert "n" * 300 in text
    assert "r" * 2000 + " …" in text
    assert "r" * 2001 not in text


def test_a_page_allows_its_own_style_and_script_and_nothing_else(tmp_path: Path) -> None:
    page = Page(write(tmp_path, [entry("a", thumbnail=picture())] * 401))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for kind, texts in page.of.items():
        (text,) = texts
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert attributes.get("src", "data:").startswith("data:"), tag
        target = attributes.get("href", "data:")
        assert target.startswith("data:") or re.fullmatch(r"overview(-\d+)?\.html", target), tag
    assert not re.search(r"https?:|url\(|@import", "".join(page.of["style"] + page.of["script"]))


def test_every_state_has_its_word_and_faults_keep_their_place(tmp_path: Path) -> None:
    entries = [
        entry("a.nii", "failed", kind="system", reason="a.nii: No space left on device"),
        entry("b.nii", "refused", kind="unfit", reason="b.nii: a localizer; leave it out"),
        Entry("c.nii", "/in/c.nii", "/out/c.nii", None),
        entry("d.nii", seconds=75.0, bytes_read=12_300_000, bytes_written=4000),
        entry("e.nii", "skipped"),
    ]
    page = Page(write(tmp_path, entries))
    listed = [item for item in page.all("li") if "data-state" in item]
    assert [item["data-name"] for item in listed] == [each.name for each in entries]
    states = [item["data-state"] for item in listed]
    assert states == ["failed", "refused", "waiting", "done", "skipped"]
    words = re.sub(r"\s+", " ", page.text)
    assert "2 of 5 scans restored, 1 failed, 1 refused, 1 not reached." in words
    assert "The machine or its disk is at fault. a.nii: No space left" in words
    assert "Not an image that these weights are for. b.nii: a localizer" in words
    assert "1 min 15 s" in words
    assert "12.3 MB read, 4 kB written" in words
    assert "1 restored in 1 min 30 s, 1 by earlier runs" in words
    assert "40 scans an hour" in words
    assert "Not a medical device" in words


def test_a_restored_scan_has_its_picture_and_the_main_facts_of_its_record(tmp_path: Path) -> None:
    image = picture()
    page = Page(write(tmp_path, [entry("ct.nii", record=RECORD, thumbnail=image)]))
    (shown,) = page.all("img")
    assert base64.b64decode(shown["src"].removeprefix("data:image/png;base64,")) == image
    assert shown["alt"].startswith("ct.nii: axial slice ")
    assert re.search(r"difference ±\d+ HU", page.text)
    facts = dict(describe(entry("ct.nii", record=RECORD)).facts)
    assert facts["task"] == "ct-denoise"
    assert facts["weights"] == "light-ct-denoise.safetensors"
    assert facts["fits"] == "doubtful"
    assert facts["strength"] == "96 %"
    assert facts["noise"] == "29 HU before, 7.56 after"
    assert facts["change"] == "-0.373 on average, 115 HU at most"
    assert "grid" not in facts
    assert "volumes" not in facts
    for value in (*facts.values(), "the kernel is sharp", "restored in tiles"):
        assert value in page.text


def test_only_20_warnings_of_a_scan_are_shown() -> None:
    warnings = describe(entry("a", record={"warnings": [f"w{n}" for n in range(50)]})).warnings
    assert warnings[19:] == ("w19", "and 30 more, see the record")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["outcome", "findings", "text", "mean"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.dictionaries(st.sampled_from([*RECORD, "created"]), JSON))
def test_an_edited_record_does_not_stop_the_overview(record: dict[str, Any]) -> None:
    description = describe(entry("a", record=record))
    assert all(isinstance(value, str) for _, value in description.facts + description.others)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_left_out(value: float) -> None:
    assert "strength" not in dict(describe(entry("a", record={"strength": value})).facts)


def test_bytes_that_are_not_a_thumbnail_are_not_shown(tmp_path: Path) -> None:
    assert not Page(write(tmp_path, [entry("a", thumbnail=b"<svg onload=alert(1)>")])).all("img")


def test_200_scans_go_on_a_page_and_pages_of_an_earlier_overview_are_removed(
    tmp_path: Path,
) -> None:
    others = ["overview-1-of-4.html", "my-overview-9.html", "overview-0.html", "overview-4.htm"]
    for name in others:
        (tmp_path / name).touch()
    entries = [entry(f"{number:03}.nii") for number in range(401)]
    first = write(tmp_path, entries)
    names = ["overview.html", "overview-2.html", "overview-3.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, *others])
    assert first == tmp_path / "overview.html"
    seen = []
    for number, name in enumerate(names, start=1):
        page = Page(tmp_path / name)
        seen += [item["data-name"] for item in page.all("li") if "data-name" in item]
        assert {link["href"] for link in page.all("a")} == {*names} - {name}
        assert f"page {number} of 3" in page.text
        assert "All 401 scans restored." in page.text
    assert seen == [each.name for each in entries]
    write(tmp_path, entries[:200])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["overview.html", *others])


def test_overviews_of_parts_have_names_of_their_own(tmp_path: Path) -> None:
    entries = [entry(f"{number}.nii") for number in range(201)]
    write(tmp_path, entries)
    write(tmp_path, entries, stem="overview-2-of-4")
    write(tmp_path, entries[:1], stem="overview-2-of-4")
    names = ["overview-2-of-4.html", "overview-2.html", "overview.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize("difference", [-1, 1, -200, 200])
def test_entries_that_are_not_those_counted_leave_an_earlier_overview_as_it_was(
    tmp_path: Path, difference: int
) -> None:
    path = write(tmp_path, [entry("old.nii")])
    before = path.read_bytes()
    counts = {"done": 250 + difference}
    summary = Summary(counts=counts, seconds=1, network_seconds=1, bytes_read=1, bytes_written=1)
    with pytest.raises(ValueError, match="are counted"):
        write_overview((entry("new.nii") for _ in range(250)), counts, summary, tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["overview.html"]


def test_entries_are_held_for_one_page_at_a_time(tmp_path: Path) -> None:
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def entries() -> Iterator[Entry]:
        nonlocal alive, most
        for number in range(1000):
            one = entry(f"{number}.nii")
            weakref.finalize(one, gone)
            alive += 1
            most = max(most, alive)
            yield one

    summary = Summary(
        counts={"done": 1000}, seconds=1, network_seconds=1, bytes_read=1, bytes_written=1
    )
    write_overview(entries(), {"done": 1000}, summary, tmp_path)
    assert most <= 201


def test_a_manifest_becomes_an_overview(tmp_path: Path) -> None:
    with Manifest(tmp_path / "manifest.sqlite") as manifest:
        manifest.begin({})
        jobs = [
            Job(key=f"{number:016x}", name=f"caf\udce9-{number}.nii", source="in", target="out")
            for number in range(3)
        ]
        manifest.add((place, job, 0) for place, job in enumerate(jobs))
        manifest.keep(Outcome(key=jobs[0].key, state="done", record=RECORD, thumbnail=picture()))
        manifest.keep(Outcome(key=jobs[1].key, state="refused", kind="input", reason="no"))
        summary = Summary(
            counts={"done": 1, "skipped": 0, "refused": 1, "failed": 0},
            seconds=1,
            network_seconds=1,
            bytes_read=1,
            bytes_written=1,
        )
        entries = [*manifest.entries(faults=True), *manifest.entries(faults=False)]
        path = write_overview(entries, manifest.counts(), summary, tmp_path)
    page = Page(path)
    assert "1 of 3 scans restored, 1 refused, 1 not reached." in page.text
    states = [item["data-state"] for item in page.all("li") if "data-state" in item]
    assert states == ["refused", "done", "waiting"]
    assert "caf\\udce9-2.nii" in page.text
    assert len(page.all("img")) == 1


def test_an_overview_of_no_scans_says_so(tmp_path: Path) -> None:
    page = Page(write(tmp_path, []))
    assert "No scans were found." in page.text
    assert not page.all("script")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"done": 40}, "All 40 scans restored."),
        ({"done": 1}, "The only scan is restored."),
        ({"done": 30, "skipped": 8, "refused": 2}, "38 of 40 scans restored, 2 refused."),
        ({"failed": 1}, "0 of 1 scans restored, 1 failed."),
        ({"done": 49_000, "waiting": 1000}, "49,000 of 50,000 scans restored, 1,000 not reached."),
    ],
)
def test_a_sentence_says_what_came_of_all(counts: dict[str, int], expected: str) -> None:
    assert verdict(counts) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s"),
     (3599.6, "1 h 0 min"), (11_520, "3 h 12 min")],
)  # fmt: skip
def test_times_are_in_words(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_600, "1 MB"), (12_345_678, "12.3 MB"),
     (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes_are_in_words(count: int, expected: str) -> None:
    assert size(count) == expected


def _luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_have_the_contrast_that_wcag_asks_for(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\n *\}", TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    states = ("failed", "refused", "waiting", "done", "skipped")
    pairs = [(text, back) for text in ("text", "muted", "link") for back in ("page", "card")]
    pairs += [("on-state", state) for state in states]
    for text, back in pairs:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[back])))[::-1]
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)


def test_the_facts_are_read_from_fields_that_records_have() -> None:
    fields = {field.name for field in dataclasses.fields(RestorationRecord)}
    assert {*RECORD} <= fields
    assert {*RECORD["change"]} <= {field.name for field in dataclasses.fields(ChangeRecord)}
    assert {*RECORD["fit"]} <= {field.name for field in dataclasses.fields(FitRecord)}
