"""What speaks against restoring an image, as its file, its values or its geometry say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["doubtful", "unfit"]


@dataclass(frozen=True)
class Finding:
    """One reason to doubt that an image should be restored.

    Attributes:
        level: "unfit" if restoring it makes no sense or does harm, "doubtful" if it may.
        kind: short name that stays the same between versions, such as "localizer".
        text: what was found and where, and the remedy, on one line and without the file's name.
    """

    level: Level
    kind: str
    text: str
