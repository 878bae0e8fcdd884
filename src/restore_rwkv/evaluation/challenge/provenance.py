"""What a challenge was made from: versions, options, and digests of scans and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from restore_rwkv.evaluation.challenge.methods import ByWeights, Method
from restore_rwkv.evaluation.challenge.request import ChallengeRequest
from restore_rwkv.evaluation.challenge.sources import GoodScan
from restore_rwkv.io.record import file_sha256, program_version


def provenance_of(
    request: ChallengeRequest,
    scans: Sequence[GoodScan],
    methods: Mapping[str, Method],
    blurs: Mapping[str, float],
) -> dict[str, Any]:
    """Return what a challenge was made from, as plain JSON values.

    Args:
        request: what was asked for.
        scans: that lesions were planted in.
        methods: what restored, by name.
        blurs: sd in mm of the blur of each scan.
    """
    task = scans[0].task
    weights = {
        name: {
            "weights": method.restorer.weights_of(task).name,
            "sha256": file_sha256(method.restorer.weights_of(task)),
        }
        for name, method in methods.items()
        if isinstance(method, ByWeights)
    }
    return {
        "software": program_version(),
        "command": request.command,
        "seed": request.seed,
        "factor": request.factor or task.factor,
        "places": request.places,
        "apart_mm": request.apart,
        "slices": request.slices,
        "split": request.split if any(scan.split for scan in scans) else None,
        "weights": weights,
        "blur_mm": dict(blurs),
        "data": {scan.name: scan.digest for scan in scans},
    }
