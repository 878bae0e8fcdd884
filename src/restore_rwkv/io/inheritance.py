"""File names of BIDS, and the JSON files that say something of an image there.

By the inheritance principle of BIDS (https://bids-specification.readthedocs.io), a JSON file
applies to each image of the same suffix, in its folder or below, that has all entities of the
file's name: `pet.json` beside `dataset_description.json` to every PET image of the dataset.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.errors import InputError

DESCRIPTION = "dataset_description.json"
"""Name of the file that makes a folder a dataset."""

_NAME = re.compile(r"((?:[a-z]+-[0-9A-Za-z+]+_)*)([0-9A-Za-z]+)(\.[0-9A-Za-z.]+)")


@dataclass(frozen=True)
class BidsName:
    """The parts of a file name such as sub-01_ses-a_run-1_T1w.nii.gz.

    Attributes:
        entities: in their order, such as {"sub": "01", "ses": "a", "run": "1"}.
        suffix: such as "T1w".
        extension: such as ".nii.gz".
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str

    def __str__(self) -> str:
        parts = [f"{key}-{label}" for key, label in self.entities.items()]
        return "_".join([*parts, self.suffix]) + self.extension


def bids_name(name: str) -> BidsName | None:
    """Return the parts of a file name; None where it is not one of BIDS, or repeats an entity."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    pairs = [part.split("-") for part in match[1].split("_")[:-1]]
    entities = {key: label for key, label in pairs}
    return BidsName(entities, match[2], match[3]) if len(entities) == len(pairs) else None


def dataset_of(image: Path) -> Path | None:
    """Return the BIDS dataset that an image belongs to; None where it lies in none.

    Args:
        image: absolute path; links are not followed, as git-annex links every image elsewhere.
    """
    name = bids_name(image.name)
    if name is None or "sub" not in name.entities:
        return None
    folder = image.parent.parent  # of its data type
    for key in ("ses", "sub"):
        if key in name.entities:
            if folder.name != f"{key}-{name.entities[key]}":
                return None
            folder = folder.parent
    return folder if (folder / DESCRIPTION).is_file() else None


def inherited_files(image: Path) -> tuple[Path, ...]:
    """Return the JSON files that apply to an image of a dataset, the most general first.

    Args:
        image: absolute path, as for `dataset_of`.

    Returns:
        At most one of each folder; nothing where the image lies in no dataset. A link to nothing is
        among them.

    Raises:
        InputError: several files of one folder apply, which BIDS forbids, and none has all
            entities of the image.
    """
    dataset, name = dataset_of(image), bids_name(image.name)
    if dataset is None or name is None:
        return ()
    found: list[Path] = []
    exact = str(BidsName(name.entities, name.suffix, ".json"))
    folder, entered = dataset, set[str]()
    for part in ("", *image.parent.relative_to(dataset).parts):
        folder = folder / part
        entered |= {part.split("-")[0]} & {"sub", "ses"}
        # Names are tried, not listed: the folder of a dataset can have many thousand subjects.
        names = [f"{stem}.json" for stem in _stems(name, entered)]
        there = [folder / name for name in names if os.path.lexists(folder / name)]
        if len(there) > 1 and there[0].name != exact:
            raise InputError(
                f"{there[0]}: applies to {image.name} as {there[1].name} beside it does, which "
                "BIDS forbids; join them, or give one all entities of the image"
            )
        found += there[:1]
    return tuple(found)


def _stems(name: BidsName, entered: set[str]) -> Iterator[str]:
    """Names without .json that apply to an image, that with most entities first.

    Args:
        name: of the image.
        entered: which of "sub" and "ses" the folder belongs to; it has them in all its names.
    """
    places = {"sub", "ses"}
    free = [key for key in name.entities if key not in places]
    for count in range(len(free), -1, -1):
        for kept in itertools.combinations(free, count):
            chosen = {*entered, *kept}
            entities = {key: label for key, label in name.entities.items() if key in chosen}
            yield str(BidsName(entities, name.suffix, ""))
