"""`python benchmarks/parity_runtime.py DIR`: exports under the ONNX Runtime that is installed.

It needs NumPy and onnxruntime only, so that it runs in an environment of any version. DIR is what
`python -m benchmarks.parity DIR` left: exported networks, with images and what PyTorch makes of
them. The result is DIR/runtime-VERSION.json, from which that command makes a table.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

REPEATS = 3


def main(folder: Path) -> None:
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("*.onnx")):
        with np.load(path.with_suffix(".npz")) as arrays:
            found[path.stem] = run(path, dict(arrays))
        print(path.stem, found[path.stem], file=sys.stderr, flush=True)
    target = folder / f"runtime-{onnxruntime.__version__}.json"
    target.write_text(json.dumps(found, indent=2) + "\n")


def run(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest difference relative to the range of an image, and the time of the last."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    worst, times = 0.0, []
    for key in sorted(name for name in arrays if name.startswith("image")):
        feed = {"image": arrays[key]}
        if "noise_level" in names:
            feed["noise_level"] = np.zeros(len(arrays[key]), np.float32)
        (y,) = session.run(None, feed)
        expected = arrays[key.replace("image", "restored")]
        span = max(expected.max(), 0) - min(expected.min(), 0)
        worst = max(worst, float(np.abs(y - expected).max() / span))
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - start)
    return {"largest": worst, "seconds": statistics.median(times)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
