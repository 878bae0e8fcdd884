"""The golden network: weights, input and gradients made by the published code in float64."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig


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
