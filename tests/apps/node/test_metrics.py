from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest

from restore_rwkv.apps.node.metrics import Metrics, MetricsServer


def test_counters_gauges_and_histograms_appear_with_their_labels() -> None:
    metrics = Metrics()
    metrics.count("received_instances_total", origin="dimse:CT1")
    metrics.count("received_instances_total", 2, origin="dimse:CT1")
    metrics.observe("restoring_seconds", 3)
    metrics.gauge("archive_watched", 1, archive="pacs")
    metrics.present(lambda: {"series": {"done": 5}, "spool_bytes": {"": 7}})
    text = metrics.text().decode()
    assert 'restore_rwkv_node_received_instances_total{origin="dimse:CT1"} 3.0' in text
    assert 'restore_rwkv_node_restoring_seconds_bucket{le="5.0"} 1.0' in text
    assert 'restore_rwkv_node_archive_watched{archive="pacs"} 1.0' in text
    assert 'restore_rwkv_node_series{state="done"} 5.0' in text
    assert "restore_rwkv_node_spool_bytes 7.0" in text


def test_the_server_answers_on_loopback_and_knows_two_pages() -> None:
    faults = {"disk": "full"}
    server = MetricsServer(Metrics(), lambda: faults, 0)
    try:
        for page, status in (("health", 503), ("other", 404)):
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{page}")
            assert answer.value.code == status
            answer.value.close()
        faults.clear()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health") as healthy:
            assert healthy.status == 200
        assert server._server.server_address[0] == "127.0.0.1"
    finally:
        server.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
