"""Pages of HTML as tests read them: elements, texts, the slices that they keep, and contrast."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from restore_rwkv.evaluation.report.images import Codes

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements of a page with their attributes, its text, and what is in scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[tuple[str, dict[str, str]]] = []
        self.code: dict[str, str] = {}
        self.data: dict[str, str] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script" and "id" in attributes:
            self.data[attributes["id"]] = data
        elif tag in ("style", "script"):
            self.code[tag] = data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)

    def check_needs_nothing(self) -> None:
        """Hold the page to its own style and script, by digest, and to no address."""
        policy = next(m["content"] for m in self.all("meta") if "http-equiv" in m)
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "unsafe" not in policy
        for kind, text in self.code.items():
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        for tag, attributes in self.elements:
            assert not {name for name in attributes if name.startswith("on") or name == "style"}, (
                tag
            )
            assert attributes.get("src", "data:").startswith("data:"), tag
            assert re.match("data:|#", attributes.get("href", "#")), tag
        script = self.code["script"].replace(
            "http://www.w3.org/2000/svg", ""
        )  # a name, not fetched
        assert not re.search(r"https?:|url\(|@import|innerHTML|eval\(", self.code["style"] + script)


def decoded(text: str, shape: tuple[int, int], before: Codes | None = None) -> Codes:
    """Undo `text_of` and `encode`, pixel by pixel as the page's script does."""
    stored = base64.b85decode(text.replace(",", "<"))
    kind, rest = stored[0] & 3, zlib.decompress(stored[1:])
    border = 32768 if stored[0] > 3 else 0
    low, high = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    codes = np.full((shape[0] + 1, shape[1] + 1), border, np.int64)
    for place, (lower, upper) in enumerate(zip(low, high, strict=True)):
        row, column = divmod(place, shape[1])
        folded = lower | upper << 8
        left, above = int(codes[row + 1, column]), int(codes[row, column + 1])
        corner = int(codes[row, column])
        predicted = (border, left, (left + above) // 2, left + above - corner)[kind]
        codes[row + 1, column + 1] = (predicted + ((folded >> 1) ^ -(folded & 1))) % 65536
    return (codes[1:, 1:] + (0 if before is None or not border else before - border)).astype(
        np.uint16
    )


class Contrast:
    """Contrast of two of a style's colours by WCAG 2.

    Args:
        scheme: 0 for the colours of light pages, 1 for those of dark ones.
        styles: texts of style sheets, each of which has first the ones and then the others.
    """

    def __init__(self, scheme: int, *styles: str) -> None:
        self.colours: dict[str, str] = {}
        for style in styles:
            block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
            self.colours |= dict(re.findall(r"--(\w+): (#\w{6});", block))

    def __call__(self, one: str, other: str) -> float:
        dark, bright = sorted(_luminance(self.colours[name]) for name in (one, other))
        return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
