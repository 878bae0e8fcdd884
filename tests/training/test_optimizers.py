from __future__ import annotations

import pytest
import torch

from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.training import optimizers
from restore_rwkv.training.optimizers import Muon, make_optimizers, mixes_channels, orthogonalised
from restore_rwkv.training.recipe import TrainingRecipe


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon")
@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (16, 16), (64, 256)])
def test_muon_on_matrices_is_that_of_pytorch(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit in bfloat16, PyTorch's precision; within its rounding in float32."""
    for fast, atol in ((True, 0.0), (False, 2e-3)):
        monkeypatch.setattr(optimizers, "multiplies_bfloat16", lambda _device, fast=fast: fast)
        torch.manual_seed(0)
        ours = torch.nn.Parameter(torch.randn(shape))
        theirs = torch.nn.Parameter(ours.detach().clone())
        first = Muon([ours], lr=0.02)
        second = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)
        for _ in range(4):
            ours.grad = torch.randn(shape)
            theirs.grad = ours.grad.clone()
            first.step()
            second.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def test_muon_takes_a_convolution_as_a_matrix() -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(8, 5, 3, 3))
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    kernel.grad = torch.randn(8, 5, 3, 3)
    matrix.grad = kernel.grad.flatten(1).clone()
    for parameter in (kernel, matrix):
        Muon([parameter], lr=0.02).step()
    assert torch.equal(kernel.flatten(1), matrix)


@pytest.mark.parametrize("shape", [(4, 30), (30, 4), (12, 12)])
def test_updates_have_singular_values_close_to_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)).float())
    # The iteration leaves them between 0.68 and 1.14; small ones of square matrices stay lower.
    assert values.max() < 1.25
    assert values.median() > 0.65
    assert not orthogonalised(torch.zeros(shape)).any()


def test_every_parameter_is_in_one_group() -> None:
    network = RestoreRWKV(PRESETS["light"])
    for settings in (
        TrainingRecipe(),
        TrainingRecipe(matrix_rate=1e-3),
        TrainingRecipe(optimizer="adamw", weight_decay=0.1),
        TrainingRecipe(optimizer="muon", matrix_rate=0.02),
    ):
        groups = [g for o in make_optimizers(network, settings) for g in o.param_groups]
        grouped = [id(p) for group in groups for p in group["params"]]
        assert len(grouped) == len(set(grouped)) == len(list(network.parameters()))
    assert [group["peak"] for group in groups] == [2e-4, 0.02]


def test_the_matrices_are_those_that_mix_hidden_channels() -> None:
    network = RestoreRWKV(PRESETS["light"])
    mixing = {name for name, p in network.named_parameters() if mixes_channels(name, p)}
    assert {"latent.0.att.key.weight", "refinement.0.ffn.value.weight"} <= mixing
    assert {"down1_2.body.0.weight", "up2_1.body.0.weight", "reduce_chan_level3.weight"} <= mixing
    for name in mixing:
        assert not name.startswith(("patch_embed", "output"))
        assert "omni_shift" not in name
        assert network.get_parameter(name).ndim in (2, 4)
    others = dict(network.named_parameters()).keys() - mixing
    assert {"patch_embed.weight", "output.weight", "latent.0.att.spatial_decay"} <= others
    assert len(mixing) == 11 * 7 + 6 + 2


def test_only_the_matrices_decay() -> None:
    network = RestoreRWKV(PRESETS["light"])
    (adamw,) = make_optimizers(network, TrainingRecipe(optimizer="adamw", weight_decay=0.1))
    assert [group["weight_decay"] for group in adamw.param_groups] == [0, 0.1]
