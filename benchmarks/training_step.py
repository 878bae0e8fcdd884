"""`python -m benchmarks.training_step`: forward, backward and optimiser of one training batch.

L1 loss, clipping and Adam through Fabric, as in `restore-rwkv train` (without its moving
average), for `light` and `base`, also with checkpointed activations, and for MONAI's Restormer.
First, two things are checked: checkpointing changes neither loss nor gradients, and the loss of
three steps falls. Memory is the peak of the first two steps above the weights: activations,
gradients and Adam's moments. Times are median (min-max) of the steps after them; each row has a
process of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peer_networks import NETWORKS
from benchmarks.timing import (
    LeftOutError,
    Measured,
    command,
    figures,
    header,
    in_fresh_process,
    machine,
    measured,
    mebibytes,
    repeated,
    row,
)
from restore_rwkv.ops.cpu.memory import keep_freed_memory

Step = Callable[[], float]

CHECKPOINTED = ", checkpointed"
ROWS = (
    "light",
    f"light{CHECKPOINTED}",
    "base",
    f"base{CHECKPOINTED}",
    "Restormer",
    "Restormer-light",
)
_LARGEST_CHANGE = {"32-true": 1e-5, "bf16-mixed": 1e-2}  # of gradients, relative


def build(name: str) -> nn.Module:
    """Return the network of a row, with or without checkpointed activations."""
    torch.manual_seed(0)
    network = NETWORKS[name.removesuffix(CHECKPOINTED)]()
    if name.endswith(CHECKPOINTED):
        network.checkpoint_activations = True
    return network.train()


def training_step(network: nn.Module, batch: int, size: int, words: dict[str, str]) -> Step:
    """Return a function that takes one step on the same random batch and returns its loss."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=words["device"], devices=1, precision=words["precision"])
    # A small rate, with which random weights do not overshoot: `check` wants the loss to fall.
    adam = torch.optim.Adam(network.parameters(), 1e-5)
    model, optimizer = fabric.setup(network, adam)
    generator = torch.Generator().manual_seed(0)
    low, high = (
        torch.rand(batch, 1, size, size, generator=generator).to(fabric.device) for _ in range(2)
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.l1_loss(model(low), high)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)
        optimizer.step()
        return float(loss.detach())

    return step


def gradients(network: nn.Module, words: dict[str, str]) -> tuple[float, list[Tensor]]:
    """Return loss and gradients of a first step on two images of 32 x 32."""
    loss = training_step(network, 2, 32, words)()
    return loss, [x.grad for x in network.parameters() if x.grad is not None]


def check(name: str, words: dict[str, str]) -> None:
    """Raise SystemExit unless the loss falls, and checkpointing changes nothing."""
    if name.endswith(CHECKPOINTED):
        check_checkpointing(name, words)
    step = training_step(build(name), 2, 32, words)
    losses = [step() for _ in range(3)]
    if not losses[2] < losses[1] < losses[0] < float("inf"):
        raise SystemExit(f"{name}: the loss does not fall: {losses}")


def check_checkpointing(name: str, words: dict[str, str]) -> None:
    loss, found = gradients(build(name), words)
    plain_loss, plain = gradients(build(name.removesuffix(CHECKPOINTED)), words)
    difference = [a - b for a, b in zip(found, plain, strict=True)]
    change = float(torch.nn.utils.get_total_norm(difference) / torch.nn.utils.get_total_norm(plain))
    if not max(change, abs(loss / plain_loss - 1)) <= _LARGEST_CHANGE[words["precision"]]:
        raise SystemExit(
            f"{name}: loss {loss} for {plain_loss}, gradients differ by {change:.1e} of theirs"
        )


def measure(name: str, batch: int, size: int, budget: float, words: dict[str, str]) -> Measured:
    """Measure the steps of one row. Call it in a fresh process."""
    device = words["device"]
    network = build(name).to(device)
    keep_freed_memory()
    step = training_step(network, batch, size, words)
    # Adam makes its moments in the first step; the second has them beside the activations.
    pair = measured(lambda: [step(), step()], budget=0, device=device)
    return Measured(repeated(step, 5, budget - pair.median, device), pair.peak)


def print_row(name: str, words: argparse.Namespace) -> Measured | None:
    chosen = {"device": words.device, "precision": words.precision}
    try:
        in_fresh_process(check, name, chosen)
        size = words.batch, words.size
        found = in_fresh_process(measure, name, *size, words.budget, chosen)
    except LeftOutError as error:
        row(name, f"left out: {error}", "", "")
        return None
    rate = f"{words.batch / found.median:.3g}"
    row(name, figures(found.seconds), rate, mebibytes(found.peak))
    return found


def print_costs(found: dict[str, Measured | None]) -> None:
    """Print cost and saving of checkpointing, for each network measured both ways."""
    for name, with_it in found.items():
        plain = found.get(name.removesuffix(CHECKPOINTED))
        if name.endswith(CHECKPOINTED) and with_it and plain:
            times = f"{with_it.median / plain.median:.2f} times the time"
            saved = f", {with_it.peak / plain.peak:.2f} times the memory" if plain.peak else ""
            print(f"\n{name}: {times}{saved}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="side of an image in pixels")
    parser.add_argument("--budget", type=float, default=90, help="seconds of steps per row")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=tuple(_LARGEST_CHANGE), default="32-true")
    words = parser.parse_args(arguments)
    print(f"{command('benchmarks.training_step', arguments)}\n")
    print(
        f"{machine(words.device)}, {words.precision}, batch {words.batch}, "
        f"{words.size} x {words.size}\n"
    )
    header("network", "seconds per step", "images per second", "peak above the weights, MiB")
    print_costs({name: print_row(name, words) for name in words.only})


if __name__ == "__main__":
    main()
