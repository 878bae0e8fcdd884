"""What is done with each series: refused, restored, tried again, handed on, at last deleted."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.config import NodeConfig
from restore_rwkv.apps.node.metrics import Metrics
from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.own import is_made_here
from restore_rwkv.apps.node.queueing.entries import Entry
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.restoring.reasons import is_disk_full, reason_of
from restore_rwkv.apps.node.restoring.workers import (
    Restoration,
    Restoring,
    derived_folder,
    remove_derived,
)
from restore_rwkv.apps.node.retrying import waiting_time
from restore_rwkv.apps.node.rules import NO_RULE, Rule, first_match
from restore_rwkv.errors import RestoreError

if TYPE_CHECKING:
    from restore_rwkv.apps.node.spooling.spool import Spool
    from restore_rwkv.batch.job import Outcome

_logger = logging.getLogger(__name__)
_FREE_BYTES = 512 << 20


class Coordinator:
    """Takes series through the queue; only the thread that calls it changes what is restored.

    Args:
        config: of the node.
        queue: of series.
        spool: of received files.
        restoring: the workers.
        metrics: where it is counted.
    """

    def __init__(
        self,
        config: NodeConfig,
        queue: Queue,
        spool: Spool,
        restoring: Restoring,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._queue = queue
        self._spool = spool
        self._restoring = restoring
        self._metrics = metrics
        # What is to be noted in the queue: where the disk fails, it is done later.
        self._notes: deque[Callable[[], None]] = deque()

    def turn(self, timeout: float, stopped: Callable[[], bool]) -> None:
        """Do what is due, and wait for workers for up to `timeout` seconds.

        Raises:
            OSError: the disk fails; what could not be done is done by a later call.
        """
        self._note_all()
        self._queue.complete()
        while self._restoring.room and self.disk_fault() is None and not stopped():
            entry = self._queue.claim_ready()
            if entry is None:
                break
            self._begin(entry)
            self._note_all()
        for restoration, outcome in self._restoring.ended(timeout):
            self._notes.append(partial(self._settle, restoration, outcome))
        self._note_all()

    def disk_fault(self) -> str | None:
        """Return why nothing is restored now; None where the disk has room."""
        free = shutil.disk_usage(self._config.folder).free
        return None if free > _FREE_BYTES else f"only {free >> 20} MiB are free"

    def remove(self, series_uid: str) -> None:
        """Remove the files of a series, received and derived."""
        self._spool.remove(series_uid)
        folder = derived_folder(self._config.folder)
        for path in folder.glob(f"{short_hash(series_uid)}-r*"):
            if path.is_dir():
                remove_derived(path)

    def _note_all(self) -> None:
        while self._notes:
            self._notes[0]()
            self._notes.popleft()

    def _begin(self, entry: Entry) -> None:
        """Refuse a series, or give it to a worker."""
        rule = first_match(self._config.rules, entry.header, entry.origin)
        try:
            files = self._queue.files(entry)
            reason = _refusal(rule, files)
            if rule is None or reason is not None:
                self._notes.append(partial(self._refuse, entry, reason or NO_RULE, "rule"))
                return
            _logger.info(
                "%s: complete: %d instances from %s; taken by rule %s",
                *(self._called(entry), entry.instances, entry.origin, rule.name),
            )
            source = self._spool.folder_of(entry.series_uid)
            self._restoring.start(entry, rule, source, files)
        except (OSError, RestoreError) as error:
            self._notes.append(partial(self._try_again, entry, str(error)))
        except Exception as error:  # a bug that one series meets must not end the node
            kind = type(error).__name__
            _logger.error("%s: a bug in restore-rwkv, please report it: %s", entry.key, kind)
            self._notes.append(partial(self._try_again, entry, f"a bug, {kind}"))

    def _settle(self, restoration: Restoration, outcome: Outcome) -> None:
        """Note what came of a series."""
        entry, rule = restoration.entry, restoration.rule
        # Without the name of the folder, so that equal reasons of several series can be counted.
        folder = self._spool.folder_of(entry.series_uid).name
        reason = reason_of(outcome, log_patient_data=self._config.log_patient_data)
        reason = reason.removeprefix(f"{folder}: ")
        if outcome.is_fault and restoration.adopts:
            # The settings have changed since a process was killed: nothing of it has been sent.
            remove_derived(restoration.target)
            self._queue.retry(entry, reason, 0)
        elif outcome.state == "refused":
            self._refuse(entry, reason, outcome.kind)
        elif outcome.state == "failed":
            self._try_again(entry, reason)
        else:
            files = _outputs(restoration.target)
            outputs = dict.fromkeys(rule.send_to, files)
            if self._queue.finished(entry, outcome.seconds, outputs):
                self._metrics.count("restored_total", rule=rule.name)
                self._metrics.observe("restoring_seconds", outcome.seconds)
                _logger.info("%s: restored in %.1f s", entry.key, outcome.seconds)
            else:
                _logger.info("%s: not sent, as more instances have come", entry.key)

    def _refuse(self, entry: Entry, reason: str, kind: str) -> None:
        self._queue.refuse(entry, reason)
        self._metrics.count("refused_series_total", kind=kind)
        _logger.info("%s: refused: %s", self._called(entry), reason)

    def _try_again(self, entry: Entry, reason: str) -> None:
        """Have a series restored later, or give it up after too many attempts."""
        attempts = entry.attempts + 1
        full = is_disk_full(reason)  # which is nothing that attempts could wear out
        if attempts >= self._config.attempts and not full:
            self._queue.fail(entry, reason)
            self._metrics.count("failed_series_total", step="restoring")
            _logger.error("%s: given up after %d attempts: %s", entry.key, attempts, reason)
            return
        wait = waiting_time(attempts, self._config.retry_seconds)
        self._queue.retry(entry, reason, wait, counts=not full)
        self._metrics.count("retries_total", step="restoring")
        _logger.warning("%s: tried again in %.0f s: %s", entry.key, wait, reason)

    def _called(self, entry: Entry) -> str:
        """Name of a series for the log."""
        if not self._config.log_patient_data:
            return entry.key
        return f"{entry.key} ({entry.series_uid}, {entry.header.get('SeriesDescription', '')!r})"


def _refusal(rule: Rule | None, files: list[Path]) -> str | None:
    """Return why a series is not restored; None where it is."""
    if files and is_made_here(files[0]):
        return "already restored"
    if rule is None:
        return NO_RULE
    return f"rule {rule.name} ignores it" if rule.action == "ignore" else None


def _outputs(target: Path) -> list[Path]:
    """Return the files of a derived series, sorted."""
    return sorted(path for path in target.iterdir() if path.suffix == ".dcm")
