"""The node as a whole: receives, decides, restores and sends, until it is told to stop."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.config import NodeConfig
from restore_rwkv.apps.node.metrics import Metrics, MetricsServer
from restore_rwkv.apps.node.parts import Parts, Source
from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.queueing.deliveries import Deliveries
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.queueing.upkeep import Upkeep
from restore_rwkv.apps.node.restoring.coordinator import Coordinator
from restore_rwkv.apps.node.restoring.workers import Restoring
from restore_rwkv.apps.node.sending.delivering import Delivering
from restore_rwkv.apps.stopped import stopped_by_signals
from restore_rwkv.errors import ConfigError, InputError

if TYPE_CHECKING:
    from restore_rwkv.apps.node.spooling.spool import Instance

_logger = logging.getLogger(__name__)
_TURN_SECONDS = 0.2
_PURGE_SECONDS = 60.0
_FAULT_SECONDS = 5.0  # between two tries after the disk failed
_NEARLY_FULL = 0.8  # of the quota, from where on series that are done are deleted early
_LITTLE_ROOM = 1 << 30  # bytes of the disk that are free, likewise
_CLOCK_SECONDS = 5.0  # by which the clock has to be set until that is followed
_AT_A_TIME = 10
_STUCK_SECONDS = 120.0  # a turn that takes longer is a fault
_SECONDS_TO_END = 5.0


class Service:
    """One node.

    Args:
        config: its settings.
        parts: what it is made of; None for the node's own.

    Raises:
        ConfigError: a package of the extra `node` is not installed.
        InputError: another process uses the folder, or its queue cannot be used.
        OSError: the folder cannot be written to.
    """

    def __init__(self, config: NodeConfig, parts: Parts | None = None) -> None:
        parts = parts or Parts()
        _import_packages()
        from restore_rwkv.apps.node.spooling.spool import Spool

        self._config = config
        self._stop = threading.Event()
        self._turned = self._purged = time.monotonic()
        self._clock = parts.clock
        self._offset = parts.clock() - time.monotonic()  # of the clock that nobody can set
        self._ends = ExitStack()
        database = Database(config.folder)
        self._ends.callback(database.close)
        try:
            self.queue = Queue(database, config.quiet_seconds, parts.clock)
            self.upkeep = Upkeep(database, config.quiet_seconds, parts.clock)
            self.deliveries = Deliveries(database, parts.clock)
            self.metrics = Metrics()
            self._spool = Spool(
                config.folder / "spool",
                config.quota,
                series_instances=config.limits.series_instances,
                series_bytes=config.limits.series_bytes,
            )
            self._restoring = Restoring(config, parts.engine_of)
            self._ends.callback(self._restoring.close)
            self._coordinator = Coordinator(
                config, self.queue, self._spool, self._restoring, self.metrics
            )
            self._senders = self._make_senders(parts)
            self._sources = self._make_sources(parts)
            self.metrics.present(self._numbers)
        except BaseException:
            self._ends.close()
            raise

    def _make_senders(self, parts: Parts) -> list[Delivering]:
        make = parts.sender_of
        if make is None:
            from restore_rwkv.apps.node.sending.senders import sender_of

            make = sender_of
        return [
            Delivering(destination, self._config, self.deliveries, self.metrics, make)
            for destination in self._config.destinations
        ]

    def _make_sources(self, parts: Parts) -> dict[str, Source]:
        """Return the receiver and the watchers, by their names for /health."""
        config = self._config
        receiver_of, watcher_of = parts.receiver_of, parts.watcher_of
        if receiver_of is None:
            from restore_rwkv.apps.node.receiving.receiver import Receiver

            receiver_of = Receiver
        if watcher_of is None:
            from restore_rwkv.apps.node.watching.watcher import Watcher

            watcher_of = Watcher
        sources: dict[str, Source] = {}
        if config.peers:
            sources["receiver"] = receiver_of(config, self.accept, self._spool, self.metrics)
        for archive in config.archives:
            sources[f"archive {archive.name}"] = watcher_of(
                archive, config, self._spool, self.accept, self.metrics
            )
        return sources

    def accept(self, instance: Instance) -> None:
        """Register an instance that is safe in the spool; only then its sender may be answered.

        Raises:
            InputError: an instance of the same UID and other content came before.
            OSError: it could not be registered; the sender has to send it again.
        """
        if self.queue.add(instance):
            self.metrics.count("received_instances_total", origin=instance.origin)

    def stop(self) -> None:
        """Have `run` end within seconds; the next start goes on with what is unfinished."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped, by `stop` or by SIGTERM or SIGINT.

        Raises:
            OSError: a port is taken.
        """
        with self._ends, stopped_by_signals(self.stop):
            self._recover()
            if self._config.metrics_port:
                server = MetricsServer(self.metrics, self.faults, self._config.metrics_port)
                self._ends.callback(server.close)
            self._ends.callback(self._stop_senders)
            for sender in self._senders:
                sender.start()
            for source in self._sources.values():
                self._ends.callback(source.stop)
                source.start()
            _logger.info("started: %s", ", ".join(self._sources))
            while not self._stop.is_set():
                self._turn()
        _logger.info("stopped")

    def _recover(self) -> None:
        number = self.upkeep.recover(self._config.retry_seconds)
        dropped = self.deliveries.drop_unknown(d.name for d in self._config.destinations)
        if dropped:
            _logger.error("given up: %d deliveries to destinations not configured now", dropped)
        if number:
            _logger.info("goes on with %d series", number)
        self.purge()
        self._adopt()

    def _adopt(self) -> None:
        """Note the instances in the queue that it does not know: none that came whole is lost."""
        count = 0
        for instance in self._spool.strangers(self.upkeep.file_names()):
            try:
                self.accept(instance)
                count += 1
            except InputError:  # it was refused, and the process killed before its file was removed
                self._spool.discard(instance)
        if count:
            _logger.info("noted %d instances that the queue did not know", count)

    def purge(self) -> None:
        """Delete what ended long ago, files too; and earlier where quota or disk are nearly full.

        Then series that are done or refused go, the oldest first, and those given up stay.
        """
        remove = self._coordinator.remove
        number = self.upkeep.purge(self._config.keep_days * 86400, remove)
        if number:
            _logger.info("deleted %d series that ended long ago", number)
        early = 0
        while self._is_short():
            deleted = self.upkeep.purge(0.0, remove, most=_AT_A_TIME, failed=False)
            if not deleted:
                break
            early += deleted
        if early:
            _logger.info("deleted %d series before their time, to make room", early)

    def _is_short(self) -> bool:
        """Whether there is little room, of the quota or of the disk."""
        free = shutil.disk_usage(self._config.folder).free
        return self._spool.used() > _NEARLY_FULL * self._config.quota or free < _LITTLE_ROOM

    def _stop_senders(self) -> None:
        for sender in self._senders:
            sender.stop()
        end = time.monotonic() + _SECONDS_TO_END
        for sender in self._senders:
            sender.join(max(0.0, end - time.monotonic()))

    def _turn(self) -> None:
        """Do what is due; afterwards something has happened, or a moment has passed."""
        self._turned = began = time.monotonic()
        try:
            self._follow_clock()
            self._coordinator.turn(_TURN_SECONDS, self._stop.is_set)
            if time.monotonic() - self._purged > _PURGE_SECONDS:
                self._purged = time.monotonic()
                self.purge()
        except OSError as error:
            _logger.error("cannot go on now, tried again in %.0f s: %s", _FAULT_SECONDS, error)
            self._stop.wait(_FAULT_SECONDS)
        if not self._restoring.running:
            self._stop.wait(max(0.0, began + _TURN_SECONDS - time.monotonic()))

    def _follow_clock(self) -> None:
        """Move the times of the queue where the clock was set while the node runs."""
        offset = self._clock() - time.monotonic()
        step = offset - self._offset
        if abs(step) > _CLOCK_SECONDS:
            self.upkeep.follow_clock(step)
            self._offset = offset
            _logger.warning("the clock was set by %+.0f s; waits and ages stay as they are", step)

    def faults(self) -> dict[str, str]:
        """Return what is wrong now, by part; empty for a healthy node."""
        found: dict[str, str] = {}
        late = time.monotonic() - self._turned
        if late > _STUCK_SECONDS:
            found["loop"] = f"stuck for {late:.0f} s"
        for name, source in self._sources.items():
            if not source.alive:
                found[name] = "does not run"
        for sender in self._senders:
            if not sender.alive:
                found[f"destination {sender.name}"] = "does not run"
        if self._restoring.fault is not None:
            found["workers"] = "do not start"  # the log says why
        disk = self._coordinator.disk_fault()
        if disk is None and self._spool.used() >= self._config.quota:
            disk = "the quota is used up"
        return found | ({} if disk is None else {"disk": disk})

    def _numbers(self) -> Mapping[str, Mapping[str, float]]:
        return {
            "series": self.queue.counts(),
            "deliveries_waiting": self.deliveries.waiting(),
            "oldest_open_seconds": {"": self.queue.oldest()},
            "restoring": {"": self._restoring.running},
            "spool_bytes": {"": self._spool.used()},
            "spool_quota_bytes": {"": self._config.quota},
        }


def _import_packages() -> None:
    """Import what the threads use: where several import it at the same time, pydicom breaks."""
    try:
        import prometheus_client  # noqa: F401
        import pydicom  # noqa: F401
        import pynetdicom  # noqa: F401
        import requests  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the node needs {error.name}; pip install 'restore-rwkv[node]'"
        ) from error
    import restore_rwkv.batch.pool
    import restore_rwkv.restoration  # noqa: F401
