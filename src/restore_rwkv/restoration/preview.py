"""What a restoration on disk would do, and everything that would stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.errors import RestoreError
from restore_rwkv.io import OutputOptions, Target, read_volumes
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.plan import Plan

if TYPE_CHECKING:
    from restore_rwkv.restoration.restorer import Restorer


@dataclass(frozen=True, eq=False)
class Preview:
    """What restoring a file would do.

    Attributes:
        plan: None where the file cannot be read or restored.
        refusals: messages of everything that would stop it.
    """

    plan: Plan | None
    refusals: tuple[str, ...]


def preview_file(
    restorer: Restorer,
    source: Path,
    series: int | str | None,
    output: tuple[Path | str, OutputOptions],
    options: RestoreOptions,
) -> Preview:
    """Say what a restoration would do; see `Restorer.preview`."""
    refusals: list[str] = []
    plan = None
    target = None
    with collected(refusals):
        target = Target.of(output[0], source, output[1])
        target.check_path(source)
    if target is not None:
        with collected(refusals):
            target.check_record()
    with collected(refusals):
        volumes = read_volumes(source, series=series)
        volume = next(iter(volumes))
        if target is not None:
            with collected(refusals):
                target.check_image(volume, len(volumes))
        plan = restorer.plan(volume, options)
        restorer.network(plan.task)  # the weights themselves may be damaged
        if target is not None and plan.scale is not None:
            target.check_image(plan.volume, len(volumes))
    return Preview(plan, tuple(dict.fromkeys(refusals)))


@contextmanager
def collected(refusals: list[str]) -> Iterator[None]:
    """Collect the message of an error of the user or the system instead of raising it."""
    try:
        yield
    except RestoreError as error:
        refusals.append(str(error))
    except OSError as error:
        refusals.append(f"{error.filename or 'system'}: {error.strerror or error}")
