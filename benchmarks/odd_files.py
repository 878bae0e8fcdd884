"""Run the corpus of bad and odd inputs through the command line, and print what happened.

    python -m benchmarks.odd_files [--markdown] [--only REGEX] [--jobs N] [--packages]

The exit code is 1 if any case is not as it should be.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.helpers.odd_files import Case, all_cases
from tests.helpers.odd_files.of_packages import package_cases
from tests.helpers.odd_files.running import Result, Runner


@dataclass(frozen=True)
class Row:
    """A case and what became of it; no result if it was left out."""

    case: Case
    result: Result | None

    @property
    def sound(self) -> bool:
        return self.result is None or not self.result.faults

    @property
    def happened(self) -> str:
        if self.result is None:
            return f"left out: {self.case.missing()}"
        ended = self.result.ended
        return {0: "restored" if self.case.outputs else "done"}.get(
            ended.code, f"killed ({ended.killed})" if ended.killed else f"refused, {ended.code}"
        )


def run_all(cases: Iterable[Case], folder: Path, jobs: int = 2) -> Iterator[Row]:
    """Run cases side by side, each in a folder of its own, and give the rows in their order."""
    runners = []
    idle: SimpleQueue[Runner] = SimpleQueue()
    for job in range(jobs):
        (folder / str(job)).mkdir()
        runners.append(Runner(folder / str(job)))
        idle.put(runners[-1])

    def run(case: Case) -> Row:
        if case.missing():
            return Row(case, None)
        runner = idle.get()
        try:
            return Row(case, runner.run(case))
        finally:
            idle.put(runner)

    try:
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(run, cases)
    finally:
        for runner in runners:
            runner.close()


def line(row: Row, *, markdown: bool) -> str:
    """One row of the table."""
    message = row.result.ended.message if row.result else ""
    message = re.sub(r"\S*/odd-[^ ]*/", "", message)[:300]
    faults = "; ".join(row.result.faults) if row.result else ""
    if markdown:
        cells = (row.case.family, row.case.name, row.happened, message, faults or "yes")
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    mark = "" if row.sound else f"\n    NOT AS IT SHOULD BE: {faults}"
    return f"{row.case.title}: {row.happened}: {message}{mark}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose title matches")
    parser.add_argument("--jobs", type=int, default=2, help="cases that run side by side")
    parser.add_argument(
        "--packages", action="store_true", help="the files that pydicom, nibabel ... bring along"
    )
    options = parser.parse_args()
    corpus = package_cases() if options.packages else all_cases()
    cases = [case for title, case in corpus.items() if re.search(options.only, title)]
    if options.markdown:
        print(
            "| family | case | what happened | message | as it should be |\n|---|---|---|---|---|"
        )
    rows = []
    with tempfile.TemporaryDirectory(prefix="odd-") as folder:
        for row in run_all(cases, Path(folder), options.jobs):
            rows.append(row)
            print(line(row, markdown=options.markdown), flush=True)
    wrong = sum(not row.sound for row in rows)
    left_out = sum(row.result is None for row in rows)
    print(f"\n{len(rows)} cases, {wrong} not as they should be, {left_out} left out")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
