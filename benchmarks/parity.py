"""`python -m benchmarks.parity DIR`: how far exports are from PyTorch, the tables of docs/onnx.md.

DIR keeps what was measured, so that the command may be stopped and run again: for each shipped
weight file, and for the network of the paper with random weights, the export with images and
PyTorch's results. `python benchmarks/parity_runtime.py DIR` in an environment with another version
of onnxruntime adds a row for that version. One thread; networks as they are shipped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import parity_runtime
from benchmarks.timing import machine
from restore_rwkv.model import (
    PRESETS,
    RestoreRWKV,
    find_weights,
    load_weights,
    save_weights,
    shipped_weights,
)
from restore_rwkv.model.export.graph import build_graph, require_exportable
from restore_rwkv.model.export.parity import (
    TOLERANCES,
    peaked,
    psnr_lost,
    relative_difference,
    require_parity,
)
from restore_rwkv.model.export.precision import PRECISIONS, converted
from restore_rwkv.model.export.runtime import ExportedNetwork
from restore_rwkv.model.export.trials import trials
from restore_rwkv.ops.cpu.memory import keep_freed_memory
from restore_rwkv.tasks import ScalingRule

SIZES = ((8, 8), (131, 157), (181, 217), (256, 256))
RANDOM = "base, random weights"
REPEATS = 5


def names() -> list[str]:
    """Rows of the table."""
    return [*shipped_weights(), RANDOM]


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Export a network, and keep it in a folder with images and figures."""
    source = random_base(folder) if name == RANDOM else find_weights(name)
    network, info = load_weights(source)
    network = require_exportable(source.name, network)
    start = time.perf_counter()
    graph = build_graph(network)
    found: dict[str, Any] = {"nodes": len(graph.graph.node), "traced": time.perf_counter() - start}
    exported = {
        precision: ExportedNetwork(converted(graph, precision), network.config, name)
        for precision in PRECISIONS
    }
    merged, images = network.merged(), trials(info)
    parity = require_parity(name, exported["float32"], merged, images, TOLERANCES["float32"])
    steep, steep_graph = peaked(network, graph)
    steep_run = ExportedNetwork(steep_graph, network.config, name)
    found["trials"] = parity.largest
    found["peaked"] = require_parity(name, steep_run, steep, images, 1e-4).largest
    found["export"] = time.perf_counter() - start
    found["psnr_lost"] = {p: psnr_lost(run, merged, images) for p, run in exported.items()}
    found["bytes"] = {p: converted(graph, p).ByteSize() for p in PRECISIONS}
    arrays = reference(merged)
    found["largest"] = {
        f"{rows} x {columns}": relative_difference(
            exported["float32"](torch.from_numpy(arrays[f"image{i}"])),
            torch.from_numpy(arrays[f"restored{i}"]),
        )
        for i, (rows, columns) in enumerate(SIZES)
    }
    image = torch.from_numpy(arrays[f"image{len(SIZES) - 1}"])
    found["seconds"] = in_turns({"pytorch": merged, **exported}, image)
    stem = name.partition(",")[0]
    (folder / f"{stem}.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    np.savez_compressed(folder / f"{stem}.npz", **arrays)
    return found


def random_base(folder: Path) -> Path:
    """Write the network of the paper as training begins, since none is shipped."""
    torch.manual_seed(0)
    path = folder / "base.safetensors"
    scaling = {"mri-sr": ScalingRule("robust")}
    network = RestoreRWKV(PRESETS["base"]).merged()
    save_weights(path, network, scaling=scaling, training={}, dtype=torch.float16)
    return path


def reference(network: RestoreRWKV) -> dict[str, np.ndarray]:
    """Images of several sizes, and what PyTorch makes of them."""
    arrays = {}
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for i, size in enumerate(SIZES):
            image = 20 * torch.rand(1, 1, *size, generator=generator)
            arrays[f"image{i}"] = image.numpy()
            arrays[f"restored{i}"] = network(image).numpy()
    return arrays


def in_turns(runs: dict[str, Any], image: torch.Tensor) -> dict[str, float]:
    """Median seconds of processor time of each, in turns, so that all are disturbed alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for repeat in range(REPEATS + 1):
            for name, run in runs.items():
                start = time.process_time()
                run(image)
                if repeat:
                    times[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def parity_table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Largest differences over the range of an image, of each network."""
    sizes = " | ".join(f"{rows} x {columns}" for rows, columns in SIZES)
    yield f"| weights | nodes | MB | seconds | {sizes} | slices of the sample | peaked keys |"
    yield "|---" * (6 + len(SIZES)) + "|"
    for name, row in found.items():
        values = [*row["largest"].values(), row["trials"], row["peaked"]]
        cells = " | ".join(f"{value:.1e}" for value in values)
        megabytes = row["bytes"]["float32"] / 1e6
        yield f"| {name} | {row['nodes']:,} | {megabytes:.1f} | {row['export']:.0f} | {cells} |"


def speed_table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Size, time of a slice of 256 x 256, and loss of each precision."""
    yield "| weights | precision | MB | seconds | of PyTorch's | loss in PSNR, dB |"
    yield "|---|---|---|---|---|---|"
    for name, row in found.items():
        for precision in PRECISIONS:
            seconds, megabytes = row["seconds"][precision], row["bytes"][precision] / 1e6
            ratio = seconds / row["seconds"]["pytorch"]
            lost = f"{row['psnr_lost'][precision]:.3f}"
            yield (
                f"| {name} | {precision} | {megabytes:.1f} | {seconds:.2f} | {ratio:.1f} | {lost} |"
            )


def runtime_table(runtimes: dict[str, Any]) -> Iterator[str]:
    """Largest difference over all sizes, of each version of ONNX Runtime."""
    columns = sorted({name for rows in runtimes.values() for name in rows})
    yield "| onnxruntime | " + " | ".join(columns) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for version, rows in runtimes.items():
        cells = (f"{rows[name]['largest']:.1e}" if name in rows else "" for name in columns)
        yield f"| {version} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="keeps what was measured")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.set_num_threads(1)
    found = {}
    for name in names():
        path = folder / f"{name.partition(',')[0]}.json"
        if not path.exists():
            print(f"measuring {name}", file=sys.stderr, flush=True)
            path.write_text(json.dumps(measure(name, folder), indent=2) + "\n")
        found[name] = json.loads(path.read_text())
    version = parity_runtime.onnxruntime.__version__
    if not (folder / f"runtime-{version}.json").exists():
        parity_runtime.main(folder)
    files = sorted(folder.glob("runtime-*.json"), key=_version)
    runtimes = {_name(file): json.loads(file.read_text()) for file in files}
    print(machine())
    for table in (parity_table(found), speed_table(found), runtime_table(runtimes)):
        print("", *table, sep="\n")


def _name(file: Path) -> str:
    return file.stem.removeprefix("runtime-")


def _version(file: Path) -> list[int]:
    return [int(part) for part in _name(file).split(".")]


if __name__ == "__main__":
    main()
