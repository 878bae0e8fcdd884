"""Watches a DICOMweb archive: fetches the series that are new and complete into the spool."""

from __future__ import annotations

import io
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from restore_rwkv.apps.node.config import Archive, NodeConfig
from restore_rwkv.apps.node.dicomweb.client import ArchivedSeries, DicomWeb
from restore_rwkv.apps.node.dicomweb.multipart import Sizes
from restore_rwkv.apps.node.dicomweb.request import PATIENCE, Patience, WebError
from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.own import TAGS, says_made_here
from restore_rwkv.apps.node.retrying import waiting_time
from restore_rwkv.apps.node.watching.watched import Watched
from restore_rwkv.errors import RestoreError

if TYPE_CHECKING:
    from restore_rwkv.apps.node.metrics import Metrics
    from restore_rwkv.apps.node.spooling.spool import Instance, Spool

_LOG = logging.getLogger(__name__)

_LONGEST_PAUSE = 600.0  # seconds, of an archive that does not answer
_LONGEST_GOODBYE = 10.0  # seconds, of an archive that is being read from
_SERIES_UID = "0020000E"
_OF_A_SERIES = (500, 504)  # statuses that one damaged series has, while others can be had


class Watcher:
    """Polls an archive, and hands what is new to the node; a thread of its own, once started.

    A series is fetched when the number of its instances in the archive has not changed for
    `config.quiet_seconds`, and not between two polls. Series that this program made are left
    alone. Faults of the archive put the next poll off, and are logged when they begin and end.

    Args:
        archive: which archive.
        config: of the node.
        spool: where instances are kept.
        accept: registers an instance that is in the spool; what it was given is safe when it
            returns, and the same instance may come twice.
        metrics: where it is counted.
        patience: how long to wait for the archive.

    Attributes:
        name: of the archive.
        fault: why the archive cannot be searched now; empty while it can.
    """

    def __init__(
        self,
        archive: Archive,
        config: NodeConfig,
        spool: Spool,
        accept: Callable[[Instance], None],
        metrics: Metrics,
        patience: Patience = PATIENCE,
    ) -> None:
        self.name = archive.name
        self.fault = ""
        self._archive = archive
        self._config = config
        self._spool = spool
        self._accept = accept
        self._metrics = metrics
        sizes = Sizes(part=config.limits.instance_bytes, whole=config.limits.series_bytes)
        self._web = DicomWeb(archive, sizes, patience)
        self._watched = Watched(config.folder / f"watched-{archive.name}.sqlite")
        self._growing: dict[str, tuple[int, float]] = {}  # number of instances, and since when
        self._faults: dict[str, tuple[int, float]] = {}  # of series: how many, and wait until when
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"from-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End after the instance that is fetched, within seconds.

        A thread that waits for its archive is left behind: whatever it does is safe to be cut off.
        """
        self._stop.set()
        if self.alive:
            self._thread.join(_LONGEST_GOODBYE)
        if not self.alive:
            self._watched.close()

    def poll(self) -> int:
        """Search once, and fetch what is due; return how many series were fetched.

        Raises:
            WebError: the archive cannot be searched, or broke off.
            OSError: the spool or the disk is full.
        """
        found: dict[str, ArchivedSeries] = {}
        for modality in self._archive.modalities or (None,):
            for series in self._web.search(modality, self._archive.days):
                found[series.series_uid] = series
        self._growing = {uid: seen for uid, seen in self._growing.items() if uid in found}
        self._faults = {uid: fault for uid, fault in self._faults.items() if uid in found}
        fetched = 0
        for series in found.values():
            if self._stop.is_set():
                break
            if self._is_due(series):
                fetched += self._handle(series)
        return fetched

    def _run(self) -> None:
        pause = self._archive.every_seconds
        while not self._stop.is_set():
            fault = self._try_poll()
            if fault:
                pause = min(2 * pause, max(_LONGEST_PAUSE, self._archive.every_seconds))
                if fault != self.fault:
                    _LOG.warning("%s; the archive is not watched meanwhile", fault)
            else:
                pause = self._archive.every_seconds
                if self.fault:
                    _LOG.info("%s: is watched again", self.name)
            self.fault = fault
            self._metrics.gauge("archive_watched", 0 if fault else 1, archive=self.name)
            self._stop.wait(pause)

    def _try_poll(self) -> str:
        """Poll; return what was wrong."""
        try:
            self.poll()
        except WebError as error:
            return str(error)
        except (OSError, sqlite3.Error) as error:
            return f"{self.name}: what it has cannot be kept ({error})"
        except Exception as error:  # a bug must not end the watching of a month
            details = self._config.log_patient_data
            _LOG.error("%s: a bug, %s", self.name, type(error).__name__, exc_info=details)
            return f"{self.name}: a bug, {type(error).__name__}"
        return ""

    def _is_due(self, series: ArchivedSeries) -> bool:
        """Whether a series is new, was seen before, and has not changed for long enough."""
        uid, now = series.series_uid, time.monotonic()
        if series.instances < 1 or self._watched.is_handled(uid, series.instances):
            self._growing.pop(uid, None)
            return False
        count, since = self._growing.get(uid, (0, now))
        if count != series.instances:
            self._growing[uid] = (series.instances, now)
            self._faults.pop(uid, None)
            return False
        _, later = self._faults.get(uid, (0, now))
        return now >= later and now - since >= self._config.quiet_seconds

    def _handle(self, series: ArchivedSeries) -> int:
        """Fetch a series if it is to be fetched; return whether it was."""
        uid, limits = series.series_uid, self._config.limits
        try:
            if series.instances > limits.series_instances:
                raise WebError(
                    f"{self.name}: a series has more than {limits.series_instances} instances, "
                    "the limit of the configuration",
                    transient=False,
                )
            if self._is_own(series) or not self._fetch(series):
                return 0
        except WebError as error:
            self._put_off(series, error)
            if error.transient and error.status not in _OF_A_SERIES:
                raise
            return 0
        self._faults.pop(uid, None)
        self._watched.note(uid, "fetched", series.instances)
        _LOG.info("%s: fetched series %s", self.name, self._shown(uid))
        return 1

    def _is_own(self, series: ArchivedSeries) -> bool:
        """Whether one instance's metadata say that this program made the series."""
        try:
            header = self._web.header(series)
        except WebError as error:
            if error.transient:
                raise
            return False  # an archive without metadata: each instance is looked at
        own = says_made_here(header)
        if own:
            self._watched.note(series.series_uid, "own", series.instances)
        return own

    def _fetch(self, series: ArchivedSeries) -> bool:
        """Fetch a series into the spool; return whether all of it was there."""
        seen: set[str] = set()
        for part in self._web.retrieve(series):
            if self._stop.is_set():
                return False
            header = _head(part)
            if says_made_here(header):
                self._watched.note(series.series_uid, "own", series.instances)
                return False
            if _value(header, _SERIES_UID) not in ("", series.series_uid):
                raise WebError(
                    f"{self.name}: sends an instance of another series than was asked for; "
                    "see the log of the archive",
                    transient=False,
                )
            seen.add(self._keep(part, series))
            if len(seen) > self._config.limits.series_instances:
                raise WebError(
                    f"{self.name}: sends more instances of a series than the limit of the "
                    "configuration",
                    transient=False,
                )
        if len(seen) < series.instances:
            raise WebError(
                f"{self.name}: sends {len(seen)} of the {series.instances} instances of a series; "
                "see the log of the archive",
                transient=False,
            )
        return True

    def _keep(self, part: bytes, series: ArchivedSeries) -> str:
        """Put an instance into the spool and the queue; return its UID."""
        try:
            instance, _ = self._spool.add(part, f"web:{self.name}")
            self._accept(replace(instance, announced=series.instances))
        except OSError:  # no room, which is a RestoreError too
            raise
        except RestoreError as error:  # not one that can be used, or another with its UID
            self._metrics.count("refused_instances_total", reason=type(error).__name__)
            raise WebError(
                f"{self.name}: an instance is refused: {error}", transient=False
            ) from error
        return instance.sop_instance_uid

    def _put_off(self, series: ArchivedSeries, error: WebError) -> None:
        """Wait before the next attempt; give up after some that failed for a lasting reason."""
        uid = series.series_uid
        count = self._faults.get(uid, (0, 0.0))[0] + 1
        wait = waiting_time(count, self._config.retry_seconds)
        self._faults[uid] = (count, time.monotonic() + wait)
        if not error.transient and count >= self._config.attempts:
            self._watched.note(uid, "refused", series.instances)
            _LOG.error("series %s is given up: %s", self._shown(uid), error)
        elif count == 1:
            _LOG.warning("series %s is tried again: %s", self._shown(uid), error)

    def _shown(self, uid: str) -> str:
        """Return a series' name for the log."""
        return uid if self._config.log_patient_data else short_hash(uid)


def _value(header: Mapping[str, Any], tag: str) -> str:
    element = header.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _head(part: bytes) -> Mapping[str, Any]:
    """Return what has to be known of an instance before it is kept, as DICOM JSON."""
    from pydicom import dcmread

    wanted: list[Any] = [int(tag, 16) for tag in (*TAGS, _SERIES_UID)]
    try:
        dataset = dcmread(io.BytesIO(part), stop_before_pixels=True, specific_tags=wanted)
        head: Mapping[str, Any] = dataset.to_json_dict(suppress_invalid_tags=True)
    except Exception:  # pydicom raises errors of many kinds; the spool says what is wrong
        return {}
    return head
