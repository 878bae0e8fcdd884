"""What a restoration on disk would do, and everything that would stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.errors import InputError, RestoreError
from restore_rwkv.io import OutputOptions, Target, read_volumes
from restore_rwkv.restoration.file import Addition, of_volume
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
        error: the first of them, as `Restorer.file` would raise it; None where there is none.
    """

    plan: Plan | None
    refusals: tuple[str, ...]
    error: Exception | None = None


def preview_file(
    restorer: Restorer,
    source: Path,
    series: int | str | None,
    output: tuple[Path | str, OutputOptions],
    options: RestoreOptions,
    addition: Addition | None = None,
) -> Preview:
    """Say what a restoration would do, and what comes with it; see `Restorer.preview`."""
    refusals: list[Exception] = []
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
        for number, volume in enumerate(volumes, start=1):
            if target is not None and plan is None:
                with collected(refusals):
                    target.check_image(volume, len(volumes))
            with of_volume(number, len(volumes)):
                planned = restorer.plan(volume, options)
            plan = plan or planned
        assert plan is not None
        restorer.network(plan.task)  # the weights themselves may be damaged
        if target is not None and plan.scale is not None:
            target.check_image(plan.volume, len(volumes))
        if target is not None and addition is not None:
            addition.check(restorer, target, plan)
    unlike = {str(error): error for error in refusals}
    return Preview(plan, tuple(unlike), next(iter(refusals), None))


@contextmanager
def collected(refusals: list[Exception]) -> Iterator[None]:
    """Collect an error of the user or the system instead of raising it."""
    try:
        yield
    except RestoreError as error:
        refusals.append(error)
    except OSError as error:
        refusals.append(InputError(f"{error.filename or 'system'}: {error.strerror or error}"))
