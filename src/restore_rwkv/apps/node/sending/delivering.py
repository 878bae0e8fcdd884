"""Sends derived series: one thread for each destination."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.config import Destination, NodeConfig
from restore_rwkv.apps.node.metrics import Metrics
from restore_rwkv.apps.node.queueing.deliveries import Deliveries, Delivery
from restore_rwkv.apps.node.retrying import waiting_time
from restore_rwkv.errors import RestoreError

if TYPE_CHECKING:
    from restore_rwkv.apps.node.sending.senders import Sender

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_LONGEST_PAUSE = 60.0
_SECONDS_BETWEEN_MARKS = 0.5  # a commit for each file would take longer than sending it

SenderOf = Callable[[Destination, NodeConfig], "Sender"]


class Delivering:
    """Sends to one destination what is due, until stopped.

    After a fault that passes, the delivery waits longer and longer, and the destination is left in
    peace for a moment, however much waits for it.

    Args:
        destination: where to.
        config: of the node.
        deliveries: what has to be sent.
        metrics: where it is counted.
        sender_of: makes the sender.
    """

    def __init__(
        self,
        destination: Destination,
        config: NodeConfig,
        deliveries: Deliveries,
        metrics: Metrics,
        sender_of: SenderOf,
    ) -> None:
        self.name = destination.name
        self._config = config
        self._deliveries = deliveries
        self._metrics = metrics
        self._sender = sender_of(destination, config)
        self._stop = threading.Event()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"to-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask the thread to end after the file that it sends."""
        self._stop.set()
        self._work.set()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        faults = 0
        while not self._stop.is_set():
            self._work.clear()
            try:
                delivery = self._deliveries.next(self.name)
                if delivery is None:
                    self._work.wait(_POLL_SECONDS)
                    continue
                faults = 0 if self._send(delivery) else faults + 1
            except Exception as error:
                if self._stop.is_set():
                    return
                faults += 1
                known = isinstance(error, (OSError, RestoreError))
                words = error if known else f"a bug, {type(error).__name__}"
                _logger.warning("to %s: cannot go on now (%s)", self.name, words)
            if faults:
                pause = waiting_time(faults, self._config.retry_seconds)
                self._stop.wait(min(pause, _LONGEST_PAUSE))

    def _send(self, delivery: Delivery) -> bool:
        """Send what is left of a delivery; return whether the destination answers."""
        from restore_rwkv.apps.node.sending.senders import SendError

        started = time.monotonic()
        try:
            state = self._send_files(delivery)
        except SendError as error:
            if not error.transient:
                state = self._deliveries.fail(delivery, str(error))
                self._metrics.count("failed_series_total", step="sending")
                _logger.error("%s: not sent to %s: %s", delivery.key, self.name, error)
                return True
            self._put_off(delivery, str(error))
            return False
        except OSError as error:
            self._put_off(delivery, str(error))
            return False
        if not self._stop.is_set():
            seconds = time.monotonic() - started
            _logger.info("%s: sent to %s in %.1f s", delivery.key, self.name, seconds)
        if state == "done":
            _logger.info("%s: done", delivery.key)
        return True

    def _send_files(self, delivery: Delivery) -> str:
        """Send files, and note those that were accepted, at the latest when sending ends."""
        accepted: list[Path] = []
        marked = time.monotonic()
        try:
            for path in self._sender.send(delivery.files) if delivery.files else ():
                accepted.append(path)
                if time.monotonic() - marked > _SECONDS_BETWEEN_MARKS:
                    self._mark(delivery, accepted)
                    accepted, marked = [], time.monotonic()
                if self._stop.is_set():
                    break
        except BaseException:
            if accepted:
                self._mark(delivery, accepted)
            raise
        return self._mark(delivery, accepted)

    def _mark(self, delivery: Delivery, files: Sequence[Path]) -> str:
        state = self._deliveries.mark_sent(delivery, files)
        self._metrics.count("sent_instances_total", len(files), destination=self.name)
        return state

    def _put_off(self, delivery: Delivery, reason: str) -> None:
        """Have a delivery tried again, or give it up when it has waited for too long."""
        if delivery.age > self._config.send_days * 86400:
            self._deliveries.fail(delivery, reason)
            self._metrics.count("failed_series_total", step="sending")
            _logger.error("%s: given up sending to %s: %s", delivery.key, self.name, reason)
            return
        wait = waiting_time(delivery.attempts + 1, self._config.retry_seconds)
        self._deliveries.retry(delivery, reason, wait)
        self._metrics.count("retries_total", step="sending")
        _logger.warning(
            "%s: not sent to %s, tried again in %.0f s: %s", delivery.key, self.name, wait, reason
        )
