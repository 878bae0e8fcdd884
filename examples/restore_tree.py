"""Restore every scan below a folder in worker processes, as `restore-rwkv batch` does.

python examples/restore_tree.py scans restored
"""

import argparse
import sys
from pathlib import Path

from restore_rwkv.batch import (
    BatchRequest,
    Job,
    Outcome,
    Pool,
    Progressed,
    WorkerSettings,
    find_jobs,
    run_batch,
)


class Printer:
    """Prints a line for each scan that has ended; see `restore_rwkv.batch.Listener`."""

    def found(self, number: int) -> None: ...
    def begun(self, waiting: int, finished: int) -> None:
        print(f"{waiting} to restore, {finished} done before")

    def started(self, job: Job) -> None: ...
    def progressed(self, job: Job, news: Progressed) -> None: ...
    def ended(self, job: Job, outcome: Outcome) -> None:
        print(f"{outcome.state}: {job.name} {outcome.reason}".rstrip(), flush=True)

    def waited(self) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path, help="folder of DICOM, NIfTI and others, at any depth")
    parser.add_argument("output", type=Path, help="folder of the restored scans and the manifest")
    parser.add_argument("--task", default="auto", help="by the modality of each scan if left out")
    parser.add_argument("--weights", help="the task's own if left out")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    given = parser.parse_args()

    settings = WorkerSettings(task=given.task, weights=given.weights, threads=1)
    request = BatchRequest(output=given.output, settings=settings, resume=True)
    scans = find_jobs([given.tree], given.output)
    summary = run_batch(request, lambda: scans, lambda: Pool(settings, given.jobs), Printer())
    print(f"{summary.counts}, {summary.seconds:.0f} s")
    return 1 if summary.faults else 0


if __name__ == "__main__":  # each worker imports this file, and must not begin a batch of its own
    sys.exit(main())
