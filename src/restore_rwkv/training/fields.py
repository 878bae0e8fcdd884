"""Effective receptive fields of networks by name, and their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.evaluation import figures
from restore_rwkv.evaluation.receptive_field import (
    Field,
    effective_receptive_field,
    field_images,
    field_numbers,
    noise_images,
)
from restore_rwkv.io import Progress
from restore_rwkv.restoration import find_device
from restore_rwkv.training.networks import open_network


@dataclass(frozen=True, eq=False)
class NamedField:
    """A field, and what it was measured with.

    Attributes:
        network: name of the network.
        weights: origin of its weights, in words.
        images: origin of the images, in words.
        field: (H, W), see `restore_rwkv.evaluation.effective_receptive_field`.
    """

    network: str
    weights: str
    images: str
    field: Field

    def values(self) -> dict[str, Any]:
        """Return names, size and numbers as plain values, see `field_numbers`."""
        return {
            "network": self.network,
            "weights": self.weights,
            "images": self.images,
            "size": len(self.field),
            **field_numbers(self.field),
        }


def network_fields(
    networks: Sequence[str | Path],
    *,
    data: Path | None = None,
    size: int = 160,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[NamedField]:
    """Measure effective receptive fields; all networks and images are read before the first.

    Args:
        networks: each as for `open_network`.
        data: a prepared set, a folder of such sets, or a scan of low quality; None for white noise.
        size: rows and columns of the images.
        seed: of the noise, and of the weights of networks that have not been trained.
        device: "auto", "cpu", "cuda" or "mps".
        progress: called with (networks measured, all).

    Raises:
        ConfigError: a recipe or the device is not valid.
        InputError: the data cannot be read, or do not suit a network.
        OperatorError: the output of a network does not depend on its input.
        WeightsError: there is no such network, or its file cannot be read.
    """
    place = find_device(device)
    opened = [open_network(name, seed) for name in networks]
    inputs = [
        (noise_images(size, seed), f"white noise, seed {seed}")
        if data is None
        else field_images(data, size, named.scaling)
        for named in opened
    ]
    fields: list[NamedField] = []
    for named, (images, origin) in zip(opened, inputs, strict=True):
        field = effective_receptive_field(named.network.to(place), images.to(place))
        fields.append(NamedField(named.name, named.weights, origin, field))
        if progress is not None:
            progress(len(fields), len(opened))
    return fields


def draw_fields(fields: Sequence[NamedField], path: Path) -> None:
    """Draw fields beside each other as a PNG, with their areas for 50 and 95 % of the gradient."""
    drawn: dict[str, tuple[Field, str]] = {}
    for number, one in enumerate(fields, start=1):
        area = field_numbers(one.field)["area"]
        areas = ", ".join(f"{float(share):.0%} in {area[share]:.2%}" for share in ("0.5", "0.95"))
        name = f"{one.network} ({number})" if one.network in drawn else one.network
        text = f"weights {one.weights}\n{areas} of the area\n{one.images}"
        drawn[name] = (one.field, text)
    figures.receptive_fields(drawn, path)
