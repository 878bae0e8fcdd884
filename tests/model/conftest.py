"""The golden network: weights, input and gradients made by the published code in float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from restore_rwkv.model.restore_rwkv import RestoreRWKV, RestoreRWKVConfig

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclasses.dataclass(frozen=True)
class GoldenNetwork:
    """The content of `network_a.npz`, float64."""

    config: RestoreRWKVConfig
    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]
    image: Tensor
    target: Tensor
    output: Tensor
    output_train_mode: Tensor
    loss: float

    def network(self, dtype: torch.dtype = torch.float64) -> RestoreRWKV:
        """Return the network with training branches."""
        network = RestoreRWKV(self.config).to(dtype)
        network.load_state_dict(self.weights)
        return network


@pytest.fixture(scope="session")
def golden() -> GoldenNetwork:
    with np.load(GOLDEN / "network_a.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays if name != "config"}
    return GoldenNetwork(
        config=RestoreRWKVConfig(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
        weights={k.removeprefix("weight/"): t for k, t in tensors.items() if "weight/" in k},
        gradients={k.removeprefix("grad/"): t for k, t in tensors.items() if "grad/" in k},
        image=tensors["input"],
        target=tensors["target"],
        output=tensors["output"],
        output_train_mode=tensors["output_train_mode"],
        loss=float(tensors["l1_loss"]),
    )
