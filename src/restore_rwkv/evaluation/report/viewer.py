"""The viewer of slices on a page: its controls, its scripts, and the values that they read."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from restore_rwkv.io.html import page_template

if TYPE_CHECKING:
    from markupsafe import Markup

PACKAGE = "restore_rwkv.evaluation.report"
"""Name of the package that has its files; other pages take them from there."""

BASICS, VIEWER, CONTROLS, STYLE = "basics.js", "viewer.js", "controls.js", "page.css"


def controls(slices: Sequence[str], choice: str) -> Markup:
    """Return the elements that `viewer.js` and `controls.js` use.

    Args:
        slices: names that the list of slices shows, in the order of the panels.
        choice: label of the list in which one of several images is chosen.
    """
    from markupsafe import Markup

    return Markup(page_template(PACKAGE, "viewer.html").render(slices=slices, choice=choice))


def texts(*names: str, package: str = PACKAGE) -> Markup:
    """Return style sheets or scripts of a package, one after the other, as a page holds them."""
    from markupsafe import Markup

    return Markup("".join(files(package).joinpath(n).read_text(encoding="utf-8") for n in names))


def packed(values: Mapping[str, Any]) -> str:
    """Return JSON values as text that a page can hold: base64 of zlib; `basics.js` undoes it."""
    data = json.dumps(values, separators=(",", ":")).encode("ascii")
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")
