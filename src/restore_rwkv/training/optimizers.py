"""Optimisers of a training run: Adam or AdamW, or Muon for the matrices that mix channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from restore_rwkv.model import RestorationNetwork
from restore_rwkv.peers import PeerNetwork
from restore_rwkv.training.recipe import TrainingRecipe

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95
_EPSILON = 1e-7
_BETAS = (0.9, 0.999)
_ADAM_EPSILON = 1e-8

MOMENTS = {
    "Adam": ("step", "exp_avg", "exp_avg_sq"),
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
    "Muon": ("momentum_buffer",),
}
"""Names of the state that each optimiser keeps for a parameter."""


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al., Muon, 2024, kellerjordan.github.io).

    Differs from `torch.optim.Muon` in that it takes weights of more than two axes, as matrices
    (out, in * height * width), has no weight decay, runs with PyTorch before 2.9, and uses float32
    instead of bfloat16 on processors that are slow at the latter.

    Args:
        params: weights of two or more axes, or groups of them.
        lr: learning rate.
    """

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights once; returns the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"])
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        matrix = gradient.lerp(momentum, _MOMENTUM).flatten(1)  # Nesterov
        scale = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
        weight.sub_(orthogonalised(matrix).to(weight.dtype).view_as(weight), alpha=rate * scale)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return a matrix (m, n) with its singular values moved close to 1, between 0.7 and 1.2.

    Five Newton-Schulz iterations `X <- a X + (b A + c A A) X` with `A = X X^T`, after division by
    the Frobenius norm; in bfloat16 where `multiplies_bfloat16`.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    if multiplies_bfloat16(x.device):
        x = x.bfloat16()
    x = x / x.norm().clamp(min=_EPSILON)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of bfloat16 faster than those of float32."""
    if device.type != "cpu":
        return device.type == "cuda"
    get_capabilities: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = get_capabilities()  # PyTorch from 2.11
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def make_optimizers(
    network: RestorationNetwork, recipe: TrainingRecipe
) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a recipe; each parameter is in one group of one of them.

    A group has, besides its current rate "lr", its peak rate as "peak".
    """
    options: dict[str, Any] = {
        "betas": _BETAS,
        "eps": _ADAM_EPSILON,
        # One pass over all weights; the scaler of 16-mixed does not go with it.
        "fused": recipe.precision != "16-mixed",
    }
    rate, matrix_rate = recipe.learning_rate, recipe.matrix_rate or recipe.learning_rate
    everything = list(network.named_parameters())
    names = _mixing(network)
    mixing = [p for name, p in everything if name in names]
    others = [p for name, p in everything if name not in names]
    if recipe.optimizer == "adam" and not recipe.matrix_rate:
        return [torch.optim.Adam([{"params": [p for _, p in everything], "peak": rate}], **options)]
    rest = {"params": others, "peak": rate}
    matrices = {"params": mixing, "peak": matrix_rate}
    if recipe.optimizer == "adam":
        return [torch.optim.Adam([rest, matrices], **options)]
    if recipe.optimizer == "muon":
        return [torch.optim.Adam([rest], **options), Muon([matrices], lr=matrix_rate)]
    matrices["weight_decay"] = recipe.weight_decay
    return [torch.optim.AdamW([rest, matrices], weight_decay=0, **options)]


def _mixing(network: RestorationNetwork) -> set[str]:
    if isinstance(network, PeerNetwork):
        return network.mixing_weights()
    return {name for name, p in network.named_parameters() if mixes_channels(name, p)}


def mixes_channels(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter of `RestoreRWKV` is a matrix from hidden channels to others.

    These are the linear layers of both mixes, the convolutions of the resampling and
    `reduce_chan_level*`; not the first and last layer of the network, depth-wise kernels, or
    vectors for each channel.
    """
    outer = name.startswith(("patch_embed.", "output."))
    mixing = name.endswith(".weight") and parameter.ndim >= 2
    return mixing and not outer and "omni_shift" not in name
