"""`python -m benchmarks.network`: `light` on a 512 x 512 slice and its training step, on a CPU.

The floor is the time of the network's own convolutions and matrix products on the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import machine, milliseconds, ratio, shown
from restore_rwkv.cli.app import keep_freed_memory
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.model.blocks import OmniShift

_PRODUCTS = (nn.Linear, nn.Conv2d, OmniShift)


def products(network: RestoreRWKV, image: Tensor) -> list[Callable[[], object]]:
    """Every convolution and matrix product of a forward pass, each ready to run on its own."""
    calls: list[Callable[[], object]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        forward, given = module.forward, inputs[0].clone()
        calls.append(lambda: forward(given))

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, _PRODUCTS)]
    network(image)
    for hook in hooks:
        hook.remove()
    return calls


def main() -> None:
    keep_freed_memory()
    torch.manual_seed(0)
    print(machine())
    network = RestoreRWKV(PRESETS["light"])
    merged, image = network.merged(), torch.rand(1, 1, 512, 512)
    with torch.inference_mode():
        error = float((merged(image) - network(image)).abs().max())
        if not error < 1e-4:
            raise SystemExit(f"merged and branched networks differ by {error:.1e}")
        calls = products(merged, image)
        floor = milliseconds(lambda: [call() for call in calls], 5)
        whole = milliseconds(lambda: merged(image), 5)
    print(
        f"light 512 x 512: {shown(whole)} ms; products alone {shown(floor)} ms; "
        f"ratio {ratio(whole, floor)}"
    )

    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    low, high = torch.rand(4, 1, 128, 128), torch.rand(4, 1, 128, 128)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.l1_loss(network(low), high).backward()
        optimizer.step()

    print(f"light training step, batch 4, 128 x 128: {shown(milliseconds(step, 5))} ms")


if __name__ == "__main__":
    main()
