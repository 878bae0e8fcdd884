"""What the widget runs in its thread: one volume, restored, or one line that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore_rwkv.apps.progress import CancelledError
from restore_rwkv.apps.words import Words

if TYPE_CHECKING:
    from restore_rwkv.io import Progress, Volume
    from restore_rwkv.restoration import Restored


@dataclass(frozen=True)
class Choice:
    """What is asked for in the widget.

    Attributes:
        task: name of the task, or "auto" for that of the scan's modality.
        weights: name of shipped weights or path of a file; None for the task's own.
        strength: part of the correction that is applied to CT and PET, 0 to 1; None for the
            calibrated one.
        device: where the network runs.
    """

    task: str
    weights: str | None = None
    strength: float | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Outcome:
    """What came of a restoration.

    Attributes:
        restored: the scan; None where there is none.
        line: what was done, or why not.
    """

    restored: Restored | None
    line: str


def restore_volume(volume: Volume, choice: Choice, progress: Progress) -> Outcome:
    """Restore a volume; every error becomes a line.

    Args:
        volume: the scan.
        choice: how.
        progress: called with the number of slices done and of all; it may raise `CancelledError`,
            which ends the restoration.
    """
    try:
        # Here, since they take seconds.
        from restore_rwkv.restoration import RestoreOptions, Restorer
        from restore_rwkv.restoration.notebook import verdict

        options = RestoreOptions(strength=choice.strength)
        restorer = Restorer(choice.task, choice.weights, choice.device)
        restored = restorer.run(volume, options, progress)
        return Outcome(restored, f"{verdict(restored.record)} {restored.record.notice}")
    except CancelledError:
        return Outcome(None, "cancelled")
    except Exception as error:
        return Outcome(None, f"error: {Words().error(error)}")
