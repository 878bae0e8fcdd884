"""Weight files of this package: safetensors with the configuration and provenance inside.

Loading runs no code from a file, and checks all of it before a network is returned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.io.atomic import atomic_file
from restore_rwkv.model.build import RestorationNetwork, build_network
from restore_rwkv.model.config import RestoreRWKVConfig
from restore_rwkv.model.configs import OURS, NetworkConfig, name_of, network_config
from restore_rwkv.model.header import (
    EXPORT,
    FORMAT,
    KEY,
    Header,
    damaged,
    damaged_record,
    is_exported,
    read_header,
    replace_record,
)
from restore_rwkv.options import nearest, validated
from restore_rwkv.peers import PEERS
from restore_rwkv.tasks import NOTICE, ReportCalibration, ScalingRule, Strength

FitRanges = dict[str, tuple[float, float]]
"""Smallest and largest value of each measure, by its name."""

_RECORDED = ("config", "merged", "scaling", "training", "sha256")
_DTYPES = (torch.float32, torch.float16)


@validated()
@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """The record that a weight file keeps of its weights.

    Attributes:
        config: the network's configuration.
        merged: whether the weights are in the inference form.
        scaling: how physical values become network values, by task trained for.
        training: provenance: data, iterations, seed, figures ..., as plain JSON values.
        sha256: digest of the tensors (names, data types, shapes, bytes; sorted by name), hex.
        parameters: number of weights, counted from the tensors.
        strength: calibration of the strength of the correction, by task; a task without one is
            restored at full strength.
        fit: range of each of `Modality.measures` in the training, by task and measure; images are
            not compared with what has none.
        report: calibration of the reports of restored images, by task.
        export: of an exported network, what is true of it only, as plain JSON values; else empty.
    """

    config: NetworkConfig
    merged: bool
    scaling: dict[str, ScalingRule]
    training: dict[str, Any]
    sha256: str
    parameters: int
    strength: dict[str, Strength] = dataclasses.field(default_factory=dict)
    fit: dict[str, FitRanges] = dataclasses.field(default_factory=dict)
    report: dict[str, ReportCalibration] = dataclasses.field(default_factory=dict)
    export: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.scaling:
            raise ConfigError("scaling names no task; give a rule for each task")
        for entry in ("strength", "fit", "report"):
            for task in getattr(self, entry):
                if task not in self.scaling:
                    raise ConfigError(f"{entry} names {task}, which scaling does not; leave it out")
        for task, ranges in self.fit.items():
            for name, (low, high) in ranges.items():
                if not -math.inf < low <= high < math.inf:
                    raise ConfigError(
                        f"fit: {name} of {task} is {low:g} to {high:g}; give two finite numbers, "
                        "the smaller first"
                    )

    @property
    def network(self) -> str:
        """Name of the network: "restore-rwkv", or a key of `restore_rwkv.peers.PEERS`."""
        return name_of(self.config)


def save_weights(
    path: str | Path,
    network: RestorationNetwork,
    *,
    scaling: Mapping[str, ScalingRule],
    training: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    strength: Mapping[str, Strength] | None = None,
    fit: Mapping[str, FitRanges] | None = None,
    report: Mapping[str, ReportCalibration] | None = None,
) -> WeightsInfo:
    """Write a network to a safetensors file, whole or not at all.

    Args:
        path: file to write; an existing one is replaced.
        network: in either form, on any device; not changed.
        scaling: how physical values become network values, by task trained for.
        training: provenance of the weights, as plain JSON values.
        dtype: torch.float32, or torch.float16 for half the size.
        strength: calibration of the strength of the correction, by task; none by default.
        fit: ranges of the measures of images in the training, by task; none by default.
        report: calibration of the reports of restored images, by task; none by default.

    Returns:
        The record that was written with the tensors.

    Raises:
        WeightsError: a weight is not finite in `dtype`, a record is not JSON, or the file cannot
            be written.
    """
    if dtype not in _DTYPES:
        raise WeightsError(f"{path}: weights cannot be stored as {dtype}; use float32 or float16")
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
    }
    require_finite(str(path), tensors)
    try:
        info = WeightsInfo(
            config=network.config,
            merged=network.is_merged,
            scaling=dict(scaling),
            training=dict(training),
            sha256=_digest(tensors),
            parameters=sum(tensor.numel() for tensor in tensors.values()),
            strength=dict(strength or {}),
            fit=dict(fit or {}),
            report=dict(report or {}),
        )
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    record = {name: getattr(info, name) for name in _RECORDED}
    record |= {"config": info.config.to_dict(), "format": FORMAT, "notice": NOTICE}
    record["scaling"] = {task: rule.to_dict() for task, rule in scaling.items()}
    if strength:
        record["strength"] = {task: curve.to_dict() for task, curve in strength.items()}
    if fit:
        record["fit"] = fit
    if report:
        record["report"] = {task: each.to_dict() for task, each in report.items()}
    try:
        metadata = {KEY: json.dumps(record, allow_nan=False, sort_keys=True)}
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: training is no JSON ({error}); use plain, finite values"
        ) from error
    try:
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: cannot be written ({error}); check the folder, its permissions and free space"
        ) from error
    return info


def load_weights(path: str | Path) -> tuple[RestorationNetwork, WeightsInfo]:
    """Read a file written by `save_weights`.

    Args:
        path: a safetensors file.

    Returns:
        The network, float32 on the CPU, in evaluation mode and in the form that was saved, and its
        record.

    Raises:
        WeightsError: the file is missing, damaged, of another kind or version, or its tensors do
            not match its hash or its configuration.
        ConfigError: its network needs a package that is not installed.
    """
    _require_tensors(path)
    info = read_info(path)
    tensors = _read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise WeightsError(f"{path}: {name} is {tensor.dtype}; save float32 or float16")
    if _digest(tensors) != info.sha256:
        raise WeightsError(f"{path}: the weights do not match their SHA-256; fetch the file again")
    config = info.config
    if _blocks(config) > len(tensors):
        # Never build a number of blocks that only a hostile file has.
        raise WeightsError(f"{path}: the configuration does not fit the tensors; fetch it again")
    with torch.device("meta"):
        network = build_network(config, merged=info.merged)
    require_fit(str(path), network.state_dict(), tensors)
    require_finite(str(path), tensors)
    network.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    return network.eval(), info


def read_info(path: str | Path) -> WeightsInfo:
    """Read the record of a weight file, without reading or checking the weights.

    That of an exported network (`.onnx`) is read with a check of its graph.

    Raises:
        WeightsError: the file is missing, damaged, or of another kind or version.
        ConfigError: it is an exported network, and `onnx` is not installed.
    """
    return _info(path, read_header(path))


def save_fit(path: str | Path, fit: Mapping[str, FitRanges]) -> WeightsInfo:
    """Write other ranges into the record of a weight file; its tensors stay as they are.

    Args:
        path: a file written by `save_weights`.
        fit: as for `save_weights`.

    Returns:
        The record as it is now.

    Raises:
        WeightsError: the file is missing, damaged, or of another kind or version, or the ranges are
            not of its tasks.
    """
    return _save_entry(path, "fit", dict(fit), dict(fit))


def save_report(path: str | Path, report: Mapping[str, ReportCalibration]) -> WeightsInfo:
    """Write another calibration of reports into the record of a weight file.

    Its tensors stay as they are. Arguments, result and errors are those of `save_fit`.
    """
    plain = {task: each.to_dict() for task, each in report.items()}
    return _save_entry(path, "report", dict(report), plain)


def _save_entry(path: str | Path, name: str, values: Any, plain: Any) -> WeightsInfo:
    """Replace an entry of the record of a weight file."""
    _require_tensors(path)
    header, info = read_header(path), read_info(path)
    try:
        info = dataclasses.replace(info, **{name: values})
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    replace_record(path, header.record | {name: plain})
    return info


def require_fit(where: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless names and shapes are equal; `where` starts the message."""
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        near = nearest(unexpected[0], missing or expected)
        faults.append(f"{len(unexpected)} unexpected ({_some(unexpected)}; nearest: {near})")
    shapes = [
        f"{name} is {tuple(given[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if shapes:
        faults.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if faults:
        raise WeightsError(
            f"{where}: weights do not fit the network: {'; '.join(faults)}; "
            "use the configuration that they were trained with"
        )


def require_finite(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError if a weight is infinite or NaN; `where` starts the message."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(
                f"{where}: {name} as {tensor.dtype} is not finite; use weights of a run that "
                "did not diverge, stored as float32"
            )


def _require_tensors(path: str | Path) -> None:
    if is_exported(path):
        raise WeightsError(
            f"{path}: an exported network only restores; give the weight file it was made from"
        )


def _blocks(config: NetworkConfig) -> int:
    if isinstance(config, RestoreRWKVConfig):
        return sum(config.num_blocks) + config.num_refinement_blocks
    return sum(config.depth)


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _read_tensors(path: str | Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from error


def _known(path: str | Path, config: Any) -> Any:
    """Refuse the configuration of a network of a later release, by its name."""
    if isinstance(config, dict) and config.get("name", OURS) not in (OURS, *PEERS):
        raise WeightsError(
            f"{path}: of network {config['name']!r}, which this release does not know; update it"
        )
    return config


def _info(path: str | Path, header: Header) -> WeightsInfo:
    try:
        values = {name: header.record[name] for name in _RECORDED}
        values["config"] = network_config(_known(path, values["config"]))
        values["scaling"] = {
            str(task): ScalingRule.from_dict(rule) for task, rule in values["scaling"].items()
        }
        values["strength"] = {
            str(task): Strength.from_dict(curve)
            for task, curve in header.record.get("strength", {}).items()
        }
        values["fit"] = {
            str(task): {str(name): (float(low), float(high)) for name, (low, high) in rows.items()}
            for task, rows in header.record.get("fit", {}).items()
        }
        values["report"] = {
            str(task): ReportCalibration.from_dict(each)
            for task, each in header.record.get("report", {}).items()
        }
        values["export"] = dict(header.record.get(EXPORT, {}))
        return WeightsInfo(**values, parameters=header.parameters)
    except (ConfigError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise damaged_record(path, error) from error
