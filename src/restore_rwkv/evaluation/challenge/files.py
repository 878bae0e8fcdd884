"""The folder of a challenge, which appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.challenge.examples import draw_examples
from restore_rwkv.evaluation.challenge.results import Challenge
from restore_rwkv.evaluation.challenge.tables import (
    challenge_values,
    write_lesions,
    write_places,
)
from restore_rwkv.io import atomic_folder, claimed


@dataclass(frozen=True)
class ChallengeFiles:
    """A new folder with lesions.csv, places.csv, challenge.json and lesions.png.

    Attributes:
        folder: to be made.
    """

    folder: Path

    def check(self) -> None:
        """Raise InputError where the folder exists, before anything is computed."""
        if self.folder.exists() or self.folder.is_symlink():
            raise InputError(
                f"{self.folder}: exists already; name another folder, or remove it first"
            )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Claim the folder for this process.

        Raises:
            BusyError: another process is writing it.
            InputError: it exists.
        """
        with claimed(self.folder):
            self.check()
            yield

    def write(self, challenge: Challenge) -> None:
        """Write the files.

        Raises:
            InputError: the folder has appeared in the meantime.
            OSError: the disk is full.
        """
        with atomic_folder(self.folder) as temporary:
            write_lesions(challenge, temporary / "lesions.csv")
            write_places(challenge, temporary / "places.csv")
            text = json.dumps(challenge_values(challenge), indent=2, ensure_ascii=False)
            (temporary / "challenge.json").write_text(text + "\n", encoding="utf-8")
            if challenge.examples:
                draw_examples(challenge.examples, challenge.unit, temporary / "lesions.png")
