"""Timing shared by the benchmarks: repeated calls, median and spread, peak memory, the machine."""

from __future__ import annotations

import math
import pickle
import platform
import re
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from restore_rwkv.model.measuring import kibibytes, peak_bytes, seconds

T = TypeVar("T")

_MEMORY = Path("/proc/meminfo")


class LeftOutError(Exception):
    """Raised with the reason why a row of a table has no figures."""


@dataclass(frozen=True)
class Measured:
    """Time and memory of calls.

    Attributes:
        seconds: duration of each timed call.
        peak: bytes that the first call took above those held before it; None where the system
            does not report it.
    """

    seconds: list[float]
    peak: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def milliseconds(call: Callable[[], object], repeats: int = 9) -> list[float]:
    """Time `repeats` calls after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def measured(
    call: Callable[[], object], repeats: int = 5, budget: float = 60.0, device: str = "cpu"
) -> Measured:
    """Measure the memory of a first call, then time up to `repeats` more in `budget` seconds.

    If the budget has no room for a second call, the first one is timed; it has no freed memory to
    reuse, so it is slower.
    """
    first: list[float] = []
    peak = peak_bytes(lambda: first.append(seconds(call, device)), device)
    room = budget - first[0]
    return Measured(repeated(call, repeats, room, device) if first[0] <= room else first, peak)


def repeated(
    call: Callable[[], object], repeats: int = 5, budget: float = 60.0, device: str = "cpu"
) -> list[float]:
    """Time one call and as many more, up to `repeats`, as the budget in seconds has room."""
    times = [seconds(call, device)]
    while len(times) < repeats and sum(times) + times[-1] <= budget:
        times.append(seconds(call, device))
    return times


def free_bytes(device: str = "cpu") -> float:
    """Return the free memory of the device; infinite if the system does not report it."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    return 1024.0 * kibibytes(_MEMORY, "MemAvailable") if _MEMORY.exists() else float("inf")


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """Return the result of a module's function, run in a fresh process with unused memory.

    What it raises is raised here, `SystemExit` too. Tensors cannot be its result, as their memory
    ends with the process.

    Raises:
        LeftOutError: it runs out of memory, or needs a package that is not installed.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, *arguments))
    process.start()
    theirs.close()
    try:
        result, error, where = ours.recv()
    except EOFError as end:
        raise LeftOutError("its process was killed, probably out of memory") from end
    finally:
        process.kill()  # has answered; without memory it might never end by itself
        process.join()
        ours.close()
    if error is None:
        found: T = result
        return found
    if isinstance(error, ImportError):
        raise LeftOutError(f"not installed: {error}".splitlines()[0]) from error
    if isinstance(error, (MemoryError, RuntimeError)) and re.search(
        "(out of|enough|allocate) memory", str(error) or "out of memory"
    ):
        raise LeftOutError("out of memory") from error
    raise error from RuntimeError(f"in its own process:\n{where}")


def _answer(connection: Connection, function: Callable[..., object], *arguments: object) -> None:
    """Send the result of a function, or its error, from the process that runs it."""
    answer: tuple[Any, BaseException | None, str]
    try:
        answer = function(*arguments), None, ""
    except BaseException as error:  # the end of the program too, with which a check fails
        answer = None, error, traceback.format_exc()
    try:
        connection.send(answer)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        refused = TypeError(f"{function.__name__}: what it gives cannot be sent ({error})")
        connection.send((None, refused, traceback.format_exc()))


def shown(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def figures(times: list[float]) -> str:
    """Format the median (min-max) to three figures, or the one time there is."""
    values = statistics.median(times), min(times), max(times)
    middle, low, high = (f"{x:.{max(0, 2 - math.floor(math.log10(x)))}f}" for x in values)
    return f"{middle} ({low}-{high})" if len(times) > 1 else f"{middle} (one call)"


def mebibytes(size: int | None) -> str:
    return "not reported here" if size is None else f"{size / 2**20:.0f}"


def row(*cells: object) -> None:
    """Print a row of a Markdown table at once, so that an interrupted run shows its rows."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def header(*cells: str) -> None:
    row(*cells)
    print(f"|{'---|' * len(cells)}", flush=True)


def ratio(times: list[float], floor: list[float]) -> str:
    return f"{statistics.median(times) / statistics.median(floor):.2f}"


def machine(device: str = "cpu") -> str:
    """Return processor, threads, versions; and the GPU where it is the device."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    gpu = f"{torch.cuda.get_device_name()}; " if device == "cuda" else ""
    return (
        f"{gpu}{name}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )


def command(module: str, arguments: list[str] | None) -> str:
    """Return the command that makes a table, to print above it."""
    words = sys.argv[1:] if arguments is None else arguments
    return f"`{shlex.join(['python', '-m', module, *words])}`"
