"""Which files of a dataset its .bidsignore names, by the rules of .gitignore."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from restore_rwkv.errors import InputError

_TOKENS = re.compile(r"(?:\*\*/)+|/\*\*$|\*+|\?|\[[!^]?\]?[^\]/]*\]|\\.|.", re.DOTALL)


@dataclass(frozen=True)
class Ignored:
    """The lines of a .bidsignore.

    Attributes:
        rules: of each line in order, what it matches, whether only folders, and whether it takes
            paths out (true) or in again.
    """

    rules: tuple[tuple[re.Pattern[str], bool, bool], ...]

    @classmethod
    def of(cls, root: Path, but: str | None = None) -> Ignored:
        """Read the .bidsignore of a dataset; one that is absent names nothing.

        Args:
            root: folder of the dataset.
            but: leave out lines that name this folder or suffix, such as "ct" for **/ct/ and
                *_ct.nii.gz.

        Raises:
            InputError: it cannot be read.
        """
        path = root / ".bidsignore"
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as text; correct it") from error
        named = re.compile(rf"(?:^|[/_*]){but}(?:[/.*]|$)") if but else None
        return cls(tuple(_rule(line) for line in map(_trimmed, lines) if _counts(line, named)))

    def holds(self, name: str) -> bool:
        """Whether a file is ignored.

        Args:
            name: its path below the dataset, with slashes.
        """
        path = PurePosixPath(name)
        folders = [str(folder) for folder in reversed(path.parents)][1:]
        return any(self._last(folder, True) for folder in folders) or self._last(name, False)

    def _last(self, name: str, is_folder: bool) -> bool:
        """Return what the last line that matches says; false where none does."""
        said = (
            ignores
            for pattern, folders_only, ignores in reversed(self.rules)
            if (is_folder or not folders_only) and pattern.fullmatch(name)
        )
        return next(said, False)


def _trimmed(line: str) -> str:
    """Without spaces at the end, unless a backslash keeps the last."""
    bare = line.rstrip(" \r")
    return bare + " " if bare.endswith("\\") and bare != line else bare


def _counts(line: str, named: re.Pattern[str] | None) -> bool:
    return bool(line) and not line.startswith("#") and not (named and named.search(line))


def _rule(line: str) -> tuple[re.Pattern[str], bool, bool]:
    ignores = not line.startswith("!")
    line = line.removeprefix("!")
    folders_only = line.endswith("/")
    line = line.removesuffix("/")
    anywhere = "" if "/" in line else "(?:.*/)?"
    text = "".join(map(_translated, _TOKENS.findall(line.removeprefix("/"))))
    try:
        return re.compile(anywhere + text, re.DOTALL), folders_only, ignores
    except re.error:  # such as [z-a], which matches nothing in git
        return re.compile("(?!)"), folders_only, ignores


def _translated(token: str) -> str:
    if token.endswith("**/"):
        return "(?:.*/)?"
    if token == "/**":
        return "/.*"
    if token.startswith("*"):
        return "[^/]*"
    if token == "?":
        return "[^/]"
    if token.startswith("[") and len(token) > 1:
        inner = token[1:-1]
        negated = inner[:1] in ("!", "^")
        inner = inner[1:] if negated else inner
        return f"(?!/)[{'^' if negated else ''}{inner.replace('[', chr(92) + '[')}]"
    return re.escape(token[-1] if token.startswith("\\") and len(token) > 1 else token)
