"""What the interface says of scans and jobs, as plain JSON values."""

from __future__ import annotations

from typing import Any

from restore_rwkv.apps.page.catalogue import Scan
from restore_rwkv.apps.page.jobs import Job
from restore_rwkv.apps.words import Words, shown_unit
from restore_rwkv.tasks.table import TASKS

VIEWS = ("before", "after", "difference")
"""Names of the images that the viewer shows."""

_PLANES = ("auto", "axial", "coronal", "sagittal")


def scan_values(scan: Scan, words: Words) -> dict[str, Any]:
    """Return what the interface says of a scan."""
    checked = scan.checked
    known: dict[str, Any] = {
        "id": scan.id,
        "name": scan.name,
        "source": "folder" if scan.place.upload is None else "upload",
        "upload": scan.place.upload,
        "state": scan.state,
        "reason": scan.reason or None,
        "planes": ["auto"],
        "fit": {"outcome": None, "lines": []},
    }
    if checked is None:
        empty = ("modality", "unit", "shape", "spacing", "task", "weights")
        return known | dict.fromkeys((*empty, "memory", "free", "seconds")) | {"volumes": 1}
    weights = None if checked.task is None else TASKS[checked.task].weights
    others = (f"{name}: not compared, {text}" for name, text in checked.unjudged.items())
    lines = [*checked.refusals, *checked.warnings, *others]
    return known | {
        "modality": checked.modality,
        "unit": shown_unit(checked.unit, checked.modality),
        "shape": checked.shape,
        "volumes": checked.volumes,
        "spacing": checked.spacing,
        "fit": {
            "outcome": checked.fit.get(weights or ""),
            "lines": [words.line(text) for text in lines],
            "weights": dict(checked.fit),
        },
        "task": checked.task,
        "weights": weights,
        "memory": checked.memory,
        "free": checked.free,
        "seconds": None if checked.seconds is None else round(checked.seconds, 1),
        "planes": list(_PLANES if checked.spacing is not None else _PLANES[:1]),
    }


def job_values(job: Job, progress: dict[str, Any], words: Words) -> dict[str, Any]:
    """Return what the interface says of a job.

    Args:
        job: the job.
        progress: stage and numbers; empty unless it runs.
        words: for warnings.
    """
    none = {"stage": "", "done": 0, "all": 0, "seconds_left": None}
    return {
        "id": job.id,
        "scan": job.scan,
        "name": job.name,
        "state": job.state,
        **none,
        **progress,
        "error": job.error or None,
        "made": job.made_at,
        "options": vars(job.options),
        "outputs": _output_values(job, words) if job.outputs else {},
    }


def _output_values(job: Job, words: Words) -> dict[str, Any]:
    """Return the outputs of a job with addresses in place of paths."""
    outputs, here = job.outputs, f"/api/jobs/{job.id}"
    maps = [each | {"url": f"{here}/maps/{each['name']}.nii.gz"} for each in outputs["maps"]]
    return {
        **outputs,
        **{name: f"{here}/{name}.nii.gz" for name in VIEWS},
        "maps": maps,
        "record": f"{here}/record",
        "report": None if outputs["report"] is None else f"{here}/report",
        "downloads": {form: f"{here}/download?as={form}" for form in outputs["downloads"]},
        **{key: [words.line(text) for text in outputs[key]] for key in ("warnings", "notes")},
    }
