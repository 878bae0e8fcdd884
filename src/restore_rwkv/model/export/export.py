"""The export of a weight file to ONNX: build, compare with PyTorch, and only then write."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Progress
from restore_rwkv.io.atomic import atomic_files
from restore_rwkv.io.files import check_writable
from restore_rwkv.io.progress import begin_stage
from restore_rwkv.io.record import program_version
from restore_rwkv.model.checkpoint import load_weights
from restore_rwkv.model.export.file import digest, needed, require_ours
from restore_rwkv.model.export.graph import OPSET, build_graph, require_exportable
from restore_rwkv.model.export.parity import (
    TOLERANCES,
    Parity,
    peaked,
    psnr_lost,
    require_parity,
    seconds_of,
)
from restore_rwkv.model.export.precision import MEANING, PRECISIONS, Precision, converted
from restore_rwkv.model.export.runtime import ExportedNetwork
from restore_rwkv.model.export.trials import Trial, trials
from restore_rwkv.model.header import EXPORT, KEY, is_exported, read_header
from restore_rwkv.model.network import RestoreRWKV
from restore_rwkv.model.shipped import find_weights
from restore_rwkv.options import nearest

if TYPE_CHECKING:
    import onnx

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Cost:
    """What another precision than float32 costs and saves.

    Attributes:
        psnr_lost: PSNR in dB that it loses on degraded slices of the sample scan; the most.
        seconds: of a slice of them.
        seconds_float32: of the same slice with the float32 export, measured in turns.
    """

    psnr_lost: float
    seconds: float
    seconds_float32: float

    @property
    def saves_time(self) -> bool:
        """Whether it is faster by more than a tenth, which repeats differ by."""
        return self.seconds < 0.9 * self.seconds_float32


@dataclass(frozen=True)
class Exported:
    """An export that was written.

    Attributes:
        path: of the file.
        precision: "float32", "float16" or "int8".
        sha256: digest of the tensors of the weight file that it was made from.
        nodes: of the graph.
        bytes: of the file.
        seconds: that it took, comparisons included.
        parity: difference from PyTorch on slices and synthetic images.
        peaked: the same with keys `parity.PEAK` times as large, of the float32 graph.
        cost: of another precision than float32; None for float32.
        versions: of the packages that made and ran it.
    """

    path: Path
    precision: Precision
    sha256: str
    nodes: int
    bytes: int
    seconds: float
    parity: Parity
    peaked: Parity
    cost: Cost | None
    versions: Mapping[str, str]

    def lines(self) -> list[str]:
        """Say in lines of text what was written."""
        lines = [
            f"{self.path}: {self.bytes / 1e6:.1f} MB, {self.nodes} nodes, "
            f"{MEANING[self.precision]}",
            f"difference from PyTorch: {self.parity.largest:.1e} of the range, "
            f"{self.peaked.largest:.1e} with peaked keys (onnxruntime "
            f"{self.versions['onnxruntime']})",
        ]
        if self.cost is not None:
            saved = "" if self.cost.saves_time else ": no time is saved"
            lines += [
                f"loss in PSNR: {self.cost.psnr_lost:.3f} dB on the sample scan",
                f"time of a slice: {self.cost.seconds:.3f} s, with float32 "
                f"{self.cost.seconds_float32:.3f} s{saved}",
            ]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = asdict(self) | {"path": str(self.path), "versions": dict(self.versions)}
        if self.cost is not None:
            values["cost"]["saves_time"] = self.cost.saves_time
        return values


def export_onnx(
    weights: str | Path,
    path: str | Path,
    *,
    precision: Precision = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the network of a weight file as ONNX, once it computes what PyTorch computes.

    The file holds the network for images of any size, with the record of the weight file in its
    metadata: `Restorer(weights="model.onnx")` runs it, and any runtime of ONNX (docs/onnx.md).

    Args:
        weights: name of shipped weights, or a weight file; never changed.
        path: file to write, `*.onnx`.
        precision: "float32"; "float16" stores the weights in half the bytes and computes in
            float32; "int8" computes the linear layers in whole numbers. What they cost is measured
            here and stated in the result.
        overwrite: replace an existing file.
        progress: told the stages, see `io.progress`.

    Returns:
        What was written, and the differences and times that were measured.

    Raises:
        WeightsError: the weights cannot be read, are of a network that is not exported or decay
            more steeply than the exported form computes, or ONNX Runtime gives other results.
        InputError: the file cannot be written.
        ConfigError: the precision is unknown, or a package of the extra `onnx` is not installed.

    Example:
        >>> export_onnx("light-mri-sr", "light-mri-sr.onnx")  # doctest: +SKIP
    """
    source, path = find_weights(weights), Path(path)
    _check(source, path, precision, overwrite)
    versions = {name: str(needed(name, path.name).__version__) for name in _PACKAGES}
    versions |= {"torch": str(torch.__version__), "software": program_version()}
    start = time.perf_counter()
    begin_stage(progress, f"reading {source.name}")
    loaded, info = load_weights(source)
    network = require_exportable(source.name, loaded)
    begin_stage(progress, "tracing the network")
    plain = build_graph(network)
    begin_stage(progress, "comparing with PyTorch")
    made = _compared(source.name, network, plain, trials(info), precision)
    require_ours(path, made.model)  # what cannot be read again is not written
    entry = {"parameters": info.parameters, "precision": precision, "versions": versions}
    record = read_header(source).record | {EXPORT: entry | made.entry()}
    text = json.dumps(record, allow_nan=False, sort_keys=True)
    made.model.metadata_props.add(key=KEY, value=text)
    with atomic_files(path, overwrite=overwrite) as (temporary,):
        temporary.write_bytes(made.model.SerializeToString(deterministic=True))
    return Exported(
        *(path, precision, info.sha256, len(made.model.graph.node), path.stat().st_size),
        round(time.perf_counter() - start, 3),
        *(made.parity, made.peaked, made.cost, versions),
    )


@dataclass(frozen=True, eq=False)
class _Made:
    """A model that has passed the gate."""

    model: onnx.ModelProto
    parity: Parity
    peaked: Parity
    cost: Cost | None = None

    def entry(self) -> dict[str, Any]:
        """Return what the record says of it, as plain JSON values."""
        return {
            "opset": OPSET,
            "graph_sha256": digest(self.model),
            "parity": asdict(self.parity),
            "peaked": asdict(self.peaked),
            "cost": None if self.cost is None else asdict(self.cost),
        }


def _compared(
    name: str,
    network: RestoreRWKV,
    plain: onnx.ModelProto,
    images: list[Trial],
    precision: Precision,
) -> _Made:
    """Convert a model, after the gate for float32 and through that for the precision."""
    merged = network.merged()
    exported = ExportedNetwork(plain, network.config, name)
    parity = require_parity(name, exported, merged, images, TOLERANCES["float32"])
    steep, steep_graph = peaked(network, plain)
    sharp = require_parity(
        f"{name} with peaked keys",
        ExportedNetwork(steep_graph, network.config, name),
        *(steep, images, TOLERANCES["float32"]),
    )
    if precision == "float32":
        return _Made(plain, parity, sharp)
    model = converted(plain, precision)
    smaller = ExportedNetwork(model, network.config, name)
    parity = require_parity(
        f"{name} as {precision}", smaller, merged, images, TOLERANCES[precision]
    )
    real = [trial for trial in images if trial.truth is not None]
    times = seconds_of([smaller, exported], real[0])
    return _Made(model, parity, sharp, Cost(psnr_lost(smaller, merged, real), *times))


def _check(source: Path, path: Path, precision: str, overwrite: bool) -> None:
    """Refuse what would fail after minutes."""
    if precision not in PRECISIONS:
        near = nearest(precision, PRECISIONS)
        raise ConfigError(
            f"precision {precision!r} is unknown; did you mean {near!r}? give one of "
            f"{', '.join(PRECISIONS)}"
        )
    if not is_exported(path):
        raise InputError(f"{path}: is not named as ONNX; give a name that ends with .onnx")
    check_writable(path, source=source, overwrite=overwrite)
