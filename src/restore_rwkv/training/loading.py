"""The batches of a run on its device, drawn by processes of their own where that is asked for."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset

from restore_rwkv.training.interruption import ignore_interrupts
from restore_rwkv.training.pairs import Batch, Draw, PairSampler

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def batches_of(
    sampler: PairSampler, fabric: Fabric, iterations: range, workers: int | None
) -> Generator[Batch, None, None]:
    """Yield this process's share of the batches of some iterations, on its device.

    The processes that draw them have ended when this generator is closed or has ended. A process
    that is left would hold every file that was open here when it was started.

    Args:
        sampler: draws the batches.
        fabric: device and processes.
        iterations: numbers of the iterations.
        workers: number of processes; None for 4 on a GPU and none elsewhere.
    """
    on_gpu = fabric.device.type == "cuda"
    loader = DataLoader(
        _Batches(sampler, fabric.global_rank, fabric.world_size),
        batch_size=None,
        sampler=iterations,
        num_workers=4 * on_gpu if workers is None else workers,
        pin_memory=on_gpu,
        worker_init_fn=ignore_interrupts,
    )
    batches: Any = iter(loader)
    processes = list(getattr(batches, "_workers", ()))
    try:
        for batch in batches:
            yield fabric.to_device(batch)
    finally:
        if processes:
            batches._shutdown_workers()  # else done when the garbage collector comes to it
        for process in processes:
            process.kill()  # what PyTorch has waited for in vain ignores its SIGTERM
            process.join()


@dataclass(frozen=True, eq=False)
class _Batches(Dataset[Batch]):
    """Dataset whose item i is one process's share of batch i."""

    sampler: PairSampler
    rank: int
    world_size: int

    def __getitem__(self, iteration: int) -> Batch:
        draws: list[Draw] = self.sampler.draws(iteration)[self.rank :: self.world_size]
        return self.sampler.batch(draws, self.sampler.recipe.data.crop_at(iteration))
