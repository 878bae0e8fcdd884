"""Methods that `benchmarks.peers` compares; each maps a stack of CT slices to a restored one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peer_networks import NETWORKS, inference_form
from benchmarks.timing import seconds
from restore_rwkv import RestoreOptions, Restorer, Volume
from restore_rwkv.model import save_weights
from restore_rwkv.tasks import TASKS

Stack = NDArray[np.float32]
"""Slices (N, H, W) in HU."""

_HU_PER_UNIT = 40.0  # the networks' values, as light-ct-denoise has them
_BATCH = 4


class OurMethod:
    """`Restorer`, with the shipped weights of `light`, or `base` at random weights."""

    def __init__(self, name: str, device: str) -> None:
        self.restorer = Restorer("ct-denoise", _weights(name), device)
        task, plain = TASKS["ct-denoise"], RestoreOptions()
        told = self.restorer.uses_factor(task, plain)  # else it would look at the whole stack
        self.options = replace(plain, factor=task.factor) if told else plain
        self.batch = 1

    def __call__(self, stack: Stack) -> Stack:
        volume = Volume(np.moveaxis(stack, 0, 2), unit="HU", modality="CT")
        restored = self.restorer.run(volume, self.options)
        self.batch = restored.record.batch
        return restored.volume.slices(2)


def _weights(name: str) -> Path | None:
    """Return None for the shipped weights, else a file of random weights."""
    if name == "light":
        return None
    torch.manual_seed(0)
    path = Path(tempfile.mkdtemp()) / f"{name}-random.safetensors"
    scaling = {"ct-denoise": TASKS["ct-denoise"].scaling}
    save_weights(path, inference_form(NETWORKS[name]()), scaling=scaling, training={})
    return path


class NetworkMethod:
    """Another network, at random weights."""

    def __init__(self, name: str, device: str) -> None:
        torch.manual_seed(0)
        self.network = inference_form(NETWORKS[name]()).to(device)
        self.device = device
        self.batch = 1

    def __call__(self, stack: Stack) -> Stack:
        restored = np.empty_like(stack)
        with torch.inference_mode():
            for start in range(0, len(stack), self.batch):
                part = slice(start, start + self.batch)
                image = torch.from_numpy(stack[part, None]).to(self.device) / _HU_PER_UNIT
                restored[part] = (self.network(image) * _HU_PER_UNIT)[:, 0].cpu().numpy()
        return restored

    def choose_batch(self, stack: Stack) -> None:
        """Use batches of 4 where they are faster than single slices."""
        times = {}
        for self.batch in (1, _BATCH):
            self(stack[:_BATCH])
            times[self.batch] = seconds(lambda: self(stack[:_BATCH]))
        self.batch = min(times, key=times.__getitem__)


class FilterMethod:
    """A filter without training, on slices whose noise is estimated (Donoho 1994).

    Args:
        name: one of `FILTERS`.
        strength: factor on the estimate, which is too low for the correlated, uneven noise of CT.
    """

    def __init__(self, name: str, strength: float = 1.0) -> None:
        self.filter = FILTERS[name]
        self.strength = strength
        self.batch = 1

    def __call__(self, stack: Stack) -> Stack:
        from skimage.restoration import estimate_sigma

        restored = [self.filter(x, self.strength * float(estimate_sigma(x))) for x in stack]
        return np.stack(restored).astype(np.float32)


def bm3d(image: Stack, sigma: float) -> Stack:
    """Block matching (Dabov et al. 2007), as many threads as torch has."""
    from bm3d import BM3DProfile, bm3d

    profile = BM3DProfile()
    profile.num_threads = torch.get_num_threads()
    return bm3d(image, sigma_psd=sigma, profile=profile)


def non_local_means(image: Stack, sigma: float) -> Stack:
    """Buades et al. 2005, with patches and h as in scikit-image's example of the fast mode."""
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(image, 5, 6, h=0.6 * sigma, sigma=sigma, fast_mode=True)


def total_variation(image: Stack, sigma: float) -> Stack:
    """Chambolle 2004. The weight is in the unit of the image; its default is for [0, 1]."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, weight=sigma)


FILTERS: dict[str, Callable[[Stack, float], Stack]] = {
    "BM3D": bm3d,
    "non-local means": non_local_means,
    "total variation": total_variation,
}
OURS = ("light", "base")
PEER_NETWORKS = ("Restormer", "Restormer-light", "DnCNN", "U-Net")
METHODS = (*OURS, *PEER_NETWORKS, *FILTERS)


def build(name: str, device: str) -> OurMethod | NetworkMethod | FilterMethod:
    """Return a method by name; filters run on the CPU on every device."""
    if name in OURS:
        return OurMethod(name, device)
    return NetworkMethod(name, device) if name in PEER_NETWORKS else FilterMethod(name)
