"""Pages of HTML that need nothing from elsewhere: texts that can be shown, and their template."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

_LONGEST = 2000  # characters of one text
# Marks inside words of Persian and Indian languages and of emoji, and the spaces of names.
_KEPT = "\u200c\u200d\u3000\xa0"


def plain(text: str) -> str:
    r"""Return a text of which every character can be seen, on one line.

    Control characters, marks that turn the direction of writing, and bytes of file names that are
    not Unicode become escapes such as "\u202e"; what is very long is cut.
    """
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    if cut.isprintable():
        return cut
    return "".join(
        character
        if character.isprintable() or character in _KEPT
        else character.encode("unicode_escape").decode()
        for character in cut
    )


def page_template(package: str, name: str) -> Template:
    """Return a template of the package that escapes every text.

    Its filter "digest" gives the digest of a style or script by which the page's policy allows it.

    Args:
        package: name of the package that has the template's file.
        name: of that file.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = _digest
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def _finalized(value: Any) -> Any:
    """Return what the template prints; marked-up text is its own."""
    return plain(value) if type(value) is str else value


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
