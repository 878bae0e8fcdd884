"""Metrics in Prometheus' text format, and /health, on this machine's own address only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PREFIX = "restore_rwkv_node_"
_SECONDS = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)

_HELP = {
    "archive_watched": "Whether an archive could be searched at last.",
    "failed_series_total": "Series given up, by step.",
    "received_bytes_total": "Bytes of instances received by C-STORE, by origin.",
    "received_instances_total": "Instances received, by origin.",
    "refused_associations_total": "Associations refused, by reason.",
    "refused_instances_total": "Instances refused, by reason.",
    "refused_series_total": "Series not restored, by kind of reason.",
    "repeated_instances_total": "Instances that had come before, by origin.",
    "restored_total": "Series restored, by rule.",
    "restoring_seconds": "Seconds that restoring a series takes.",
    "retries_total": "Steps put off to be tried again, by step.",
    "sent_instances_total": "Derived instances accepted, by destination.",
    "series": "Series kept, by state.",
    "deliveries_waiting": "Derived series still to be sent, by destination.",
    "oldest_open_seconds": "Age of the oldest series that has not ended.",
    "restoring": "Series that workers have.",
    "spool_bytes": "Bytes of received files.",
    "spool_quota_bytes": "Most bytes of received files.",
}

Numbers = Callable[[], Mapping[str, Mapping[str, float]]]
"""Returns values of the present, by name of the gauge and value of its one label, or ""."""

_LABELS = {"series": "state", "deliveries_waiting": "destination"}


class Metrics:
    """Counters, gauges and histograms of one node; threads may use them at the same time."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry

        self._registry = CollectorRegistry()
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter, whose name ends in "_total"."""
        from prometheus_client import Counter

        self._metric(name, Counter, labels).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram of seconds."""
        from prometheus_client import Histogram

        self._metric(name, Histogram, labels, buckets=_SECONDS).observe(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        from prometheus_client import Gauge

        self._metric(name, Gauge, labels).set(value)

    def present(self, numbers: Numbers) -> None:
        """Read gauges from a function whenever the metrics are asked for."""
        self._registry.register(_Present(numbers))

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _metric(self, name: str, kind: Any, labels: Mapping[str, str], **options: Any) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = kind(
                    *(_PREFIX + name, _help(name), tuple(labels)),
                    registry=self._registry,
                    **options,
                )
            metric = self._made[name]
        return metric.labels(**labels) if labels else metric


class _Present:
    """A collector of Prometheus' client that calls a function."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def describe(self) -> list[Any]:
        """Return nothing: the registry shall not call the function when this is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """Give one family for each gauge."""
        from prometheus_client.core import GaugeMetricFamily

        for name, values in self._numbers().items():
            label = _LABELS.get(name)
            family = GaugeMetricFamily(
                _PREFIX + name, _help(name), labels=[label] if label else None
            )
            for key, value in values.items():
                family.add_metric([key] if label else [], value)
            yield family


class MetricsServer:
    """Serves /metrics and /health on 127.0.0.1.

    Args:
        metrics: to be shown.
        faults: returns what is wrong with the node, by part; empty where nothing is.
        port: to listen at; 0 for any free one.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, metrics: Metrics, faults: Callable[[], Mapping[str, str]], port: int
    ) -> None:
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(metrics, faults))
        except OSError as error:
            where = f"metrics_port {port}"
            raise OSError(error.errno, error.strerror, where) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(
    metrics: Metrics, faults: Callable[[], Mapping[str, str]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # of a client that sends nothing

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics.text())
            elif self.path == "/health":
                found = dict(faults())
                body = json.dumps({"healthy": not found, "faults": found}).encode()
                self._answer(503 if found else 200, "application/json", body)
            else:
                self._answer(404, "text/plain", b"/metrics or /health\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            """Log nothing: a scrape every few seconds is no event."""

    return Handler


def _help(name: str) -> str:
    return _HELP.get(name, name.replace("_", " ").capitalize() + ".")
