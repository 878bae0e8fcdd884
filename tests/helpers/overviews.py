"""Outcomes of scans for the tests of the overview, with names that no one should trust."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from restore_rwkv.batch import Entry, Outcome, Summary
from restore_rwkv.batch.overview import write_overview
from restore_rwkv.io import Volume
from restore_rwkv.restoration.thumbnail import thumbnail

HOSTILE = {
    "script": "<script>alert(1)</script>.nii",
    "attribute": "\" onerror=alert(1) x='\"'>.nii",
    "image": "<img src=http://elsewhere.example/a.png>",
    "template": "{{ 7 * 7 }}{% raw %}",
    "end of the script": "</script></style><!-- ]]>",
    "entity": "&lt;b&gt; &amp;",
}
RECORD: dict[str, Any] = {
    "task": "ct-denoise",
    "weights": "light-ct-denoise.safetensors",
    "modality": "CT",
    "unit": "HU",
    "strength": 0.9622,
    "scale": None,
    "volumes": 1,
    "fit": {
        "outcome": "doubtful",
        "findings": [{"level": "doubtful", "kind": "kernel", "text": "the kernel is sharp"}],
    },
    "change": {"mean": -0.3727, "largest": 115.3, "noise_before": 29.04, "noise_after": 7.556},
    "warnings": ["restored in tiles"],
    "device": "cuda:0",
}


def picture() -> bytes:
    data = np.random.default_rng(0).normal(0, 20, (32, 32, 3)).astype(np.float32)
    volume = Volume(data, np.eye(4), unit="HU", modality="CT")
    return thumbnail(volume, volume.with_data(data / 2), 2)


def entry(name: str, state: Any = "done", **values: Any) -> Entry:
    outcome = Outcome(key="0123456789abcdef", state=state, worker="node3:4711", **values)
    return Entry(name, f"/in/{name}", f"/out/{name}", outcome)


def write(folder: Path, entries: Sequence[Entry], **values: Any) -> Path:
    counts = Counter(each.outcome.state if each.outcome else "waiting" for each in entries)
    summary = Summary(
        counts={state: counts[state] for state in ("done", "skipped", "refused", "failed")},
        seconds=90.0,
        network_seconds=80.0,
        bytes_read=10**9,
        bytes_written=10**8,
    )
    return write_overview(entries, counts, summary, folder, **values)
