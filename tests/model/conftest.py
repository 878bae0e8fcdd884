"""The golden network as a fixture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore_rwkv.model import RestoreRWKVConfig
from tests.helpers import GOLDEN
from tests.helpers.golden_network import GoldenNetwork


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
