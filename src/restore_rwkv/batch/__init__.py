"""Many scans at once: finds them, has workers restore them in isolation, and keeps every outcome.

`run_batch` does all of it, as `examples/restore_tree.py` shows; its parts can be used on their
own. Workers are processes that import the script which starts them: start a batch below
`if __name__ == "__main__":` only.

Uses restoration, io and the rooms below; apps uses it. Training is its sibling.
"""

from restore_rwkv.batch.engine import Ended, Engine, Event, Progressed, Started
from restore_rwkv.batch.find import FoundJob, find_jobs
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.manifest import Entry, Manifest
from restore_rwkv.batch.pool import Pool
from restore_rwkv.batch.request import BatchRequest, Part
from restore_rwkv.batch.run import Listener, Summary, run_batch
from restore_rwkv.batch.worker import Worker, WorkerSettings

__all__ = [
    "BatchRequest",
    "Ended",
    "Engine",
    "Entry",
    "Event",
    "FoundJob",
    "Job",
    "Listener",
    "Manifest",
    "Outcome",
    "Part",
    "Pool",
    "Progressed",
    "Started",
    "Summary",
    "Worker",
    "WorkerSettings",
    "find_jobs",
    "run_batch",
]
