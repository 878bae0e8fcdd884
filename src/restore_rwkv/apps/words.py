"""What windows and pages say: lines without paths of this machine, and names safe on a disk."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from restore_rwkv.apps.cli.messages import with_flags
from restore_rwkv.errors import message_of
from restore_rwkv.io.html import plain

_LONGEST_NAME = 120  # bytes, of 255 that systems allow: outputs and records add to it
_NAMES_OF_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$")
# An absolute path; what follows a letter, a digit or another slash is a unit or an address.
_PATH = re.compile(r"(?<![\w/.:<])(?:/|[A-Za-z]:\\|\\\\)[^\s:;,'\"()]*")
# Arguments that messages of the library name, in the words of the page.
_WORDS = {
    **{name: name for name in ("task", "weights", "plane", "device", "strength", "report")},
    **{
        name: f"restore-rwkv restore --{name}"
        for name in ("force", "strict", "memory", "scale", "unit", "factor", "ensemble", "series")
    },
}


class Words:
    """Turns messages into lines that a page or a window may show.

    Args:
        roots: folders whose paths are left out.
    """

    def __init__(self, roots: Iterable[Path] = ()) -> None:
        given = {*roots, Path(os.path.expanduser("~")), Path.cwd(), Path(tempfile.gettempdir())}
        known = {text for root in given for text in (str(root), os.path.realpath(root))}
        # The longest first: one may lie in another.
        longest_first = sorted((root for root in known if len(root) > 1), key=len, reverse=True)
        self._roots = [
            re.compile(re.escape(root) + r"(?:([/\\])|(?![\w.-]))") for root in longest_first
        ]

    def line(self, text: str) -> str:
        """Return a message on one line, in the words of the page and without paths."""
        for root in self._roots:
            text = root.sub(lambda match: "" if match[1] else "the folder", text)
        text = _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)
        return plain(with_flags(" ".join(text.split()), _WORDS))

    def error(self, error: BaseException) -> str:
        """Return the line for an error; of a bug only its type and place, not what it quotes."""
        message = message_of(error)
        return self.line(message) if message is not None else bug_line(error)


def bug_line(error: BaseException) -> str:
    """Return one line that says where a bug is."""
    places = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    return f"a bug in restore-rwkv, please report it: {type(error).__name__}{where}"


def shown_unit(unit: str | None, modality: str | None) -> str | None:
    """Return the unit of values; where no file states it, that of the modality if it has one."""
    return unit or {"CT": "HU", "MR": "a.u."}.get(modality or "")


def safe_name(name: str) -> str:
    """Return a name that is one part of a path on every system, as near to a given one as can be.

    Args:
        name: anything, such as the name of a dropped file; of a path its last part counts.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name).rstrip("/\\ "))[-1]
    kept = "".join(c if c.isalnum() or c in "._-+ " else "_" for c in last).strip(" .")
    if _NAMES_OF_DEVICES.match(kept):
        kept = f"_{kept}"
    return _shortened(kept) or "file"


def _shortened(name: str) -> str:
    """Cut a name that is too long, and keep its suffix."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    stem, *suffixes = name.rsplit(".", 2)
    suffix = "".join(f".{part}" for part in suffixes if len(part.encode()) <= 8)
    room = _LONGEST_NAME - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + suffix
