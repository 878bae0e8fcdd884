from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from restore_rwkv.evaluation import attention_spread, diagnose
from restore_rwkv.io import Volume
from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig
from restore_rwkv.restoration import Restorer

SMALL = RestoreRWKVConfig(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)
NAMES = [
    *(f"encoder_level{level}.0" for level in (1, 2, 3)),
    "latent.0",
    *(f"decoder_level{level}.0" for level in (3, 2, 1)),
    "refinement.0",
]


@pytest.mark.parametrize("merged", [False, True])
def test_a_short_range_has_a_larger_spread_than_a_global_average(merged: bool) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 1, 64, 64)
    spreads = []
    for decay_range in (None, (1.0, 4.0)):
        network = RestoreRWKV(dataclasses.replace(SMALL, decay_range=decay_range))
        network = network.merged() if merged else network
        before = network(image)
        spreads.append(attention_spread(network, image))
        assert torch.equal(network(image), before)  # no hook is left
    dead, local = spreads
    assert list(dead) == NAMES
    # At full size the decay of the paper averages 4,096 tokens, the other about 4.
    assert dead["encoder_level1.0"] < 0.05 < local["encoder_level1.0"]


def test_a_scan_is_diagnosed_with_the_weights_of_its_task() -> None:
    values = np.random.default_rng(0).uniform(0, 300, (24, 32, 3)).astype(np.float32)
    spreads = diagnose(Volume(values, modality="MR"), Restorer("mri-sr"))
    assert len(spreads) == 11
    assert all(0 <= spread < 10 for spread in spreads.values())
