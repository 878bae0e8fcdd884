"""Why a figure has no value, in the words of a report."""

from __future__ import annotations

import re

_ARGUMENT = re.compile(r"^(?:hu|low|activity|scan|the truth) (?=has )")
_IMAGES = re.compile(r"^images (?:has|are) ")


def reason_of(error: Exception) -> str:
    """Return what an error says without its remedy, and about the scan instead of an argument."""
    text = str(error).partition(";")[0]
    text = _ARGUMENT.sub("the scan ", text)
    return _IMAGES.sub(lambda found: _OF_SLICES[found.group().split()[1]], text)


_OF_SLICES = {"has": "the scan has ", "are": "slices are "}
