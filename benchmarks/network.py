"""`python -m benchmarks.network`: forward passes against their matrix products, on a CPU.

The floor is the time of the network's own convolutions and matrix products, each called on its own
in PyTorch on tensors of the same shape, right before the whole network in each repeat. The result
is checked against the training form first.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import machine, milliseconds, shown
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.model.blocks import OmniShift
from restore_rwkv.ops.cpu.memory import keep_freed_memory

CASES = (("light", 512), ("light", 256), ("base", 128), ("base", 256))
REPEATS = 9
_PRODUCTS = (nn.Linear, nn.Conv2d, OmniShift)


def products(network: RestoreRWKV, image: Tensor) -> list[Callable[[], object]]:
    """Collect all convolutions and matrix products of a forward pass, to run on their own."""
    calls: list[Callable[[], object]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        forward, given = module.forward, inputs[0].detach().clone()
        calls.append(lambda: forward(given))

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, _PRODUCTS)]
    network(image.clone().requires_grad_())  # with gradients, each product is a call of its module
    for hook in hooks:
        hook.remove()
    return calls


def measure(name: str, side: int) -> str:
    """Return one row of the table."""
    network = RestoreRWKV(PRESETS[name])
    merged, image = network.merged(), torch.rand(1, 1, side, side)
    calls = products(merged, image)
    plain = network(image.clone().requires_grad_()).detach()  # in the training form
    with torch.inference_mode():
        error = float((merged(image) - plain).norm() / (plain - image).norm())
        if not error < 1e-4:
            raise SystemExit(f"inference and training differ by {error:.1e} of the residual")
        wholes, floors = [], []
        for _ in range(REPEATS):
            floors += milliseconds(lambda: [call() for call in calls], 1)
            wholes += milliseconds(lambda: merged(image), 1)
    paired = statistics.median(w / f for w, f in zip(wholes, floors, strict=True))
    return (
        f"| {name} | {side} x {side} | {error:.0e} | {shown(wholes)} | {shown(floors)} | "
        f"{paired:.2f} | {min(wholes) / min(floors):.2f} |"
    )


def main() -> None:
    keep_freed_memory()
    torch.manual_seed(0)
    print(machine())
    print("| network | image | error | whole, ms | products alone, ms | ratio | of the minima |")
    print("|---|---|---|---|---|---|---|")
    for name, side in CASES:
        print(measure(name, side), flush=True)


if __name__ == "__main__":
    main()
