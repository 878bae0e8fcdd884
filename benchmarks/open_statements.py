"""The statement of a submission to the open benchmark: what it is, and what it was trained on."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.open_definition import Definition
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.naming import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STATEMENT = "submission.toml"
FORMAT = "restore-rwkv submission 1"
_LONGEST = 300  # characters of a text
_LARGEST = 64 * 1024  # bytes of the statement


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a submission says of itself; `template` explains the keys.

    Attributes:
        seconds_per_slice: by task, as the authors measured it.
        subjects: open scans that were trained on, or used to choose.
        data: SHA-256 of the manifests that the inputs were made from, by task.
    """

    name: str = ""
    authors: tuple[str, ...] = ()
    reference: str = ""
    licence: str = ""
    subjects: tuple[str, ...] = ()
    other_data: str = ""
    parameters: int | None = None
    hardware: str = ""
    seconds_per_slice: Mapping[str, float] = field(default_factory=dict)
    benchmark: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


def read_statement(
    folder: Path, files: Sequence[str], definition: Definition, faults: FaultList
) -> Statement:
    path = folder / STATEMENT
    if STATEMENT not in files:
        faults.add(
            f"{folder}: has no {STATEMENT}; take that of "
            "`python -m benchmarks.open_benchmark inputs`"
        )
        return Statement()
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of TOML and UTF-8 too
        faults.add(f"{path}: is not TOML ({error}); correct it")
        return Statement()
    return _Reader(path, faults).statement(values, definition)


class _Reader:
    """Reads the values of a statement; collects all that is wrong with them."""

    def __init__(self, path: Path, faults: FaultList) -> None:
        self._path, self._faults = path, faults

    def statement(self, values: dict[str, Any], definition: Definition) -> Statement:
        if values.pop("format", None) != FORMAT:
            self._faults.add(f"{self._path}: format is not {FORMAT!r}; write it so")
        training = self.table(values, "training")
        network = self.table(values, "network")
        benchmark = self.table(values, "benchmark")
        data = self.table(benchmark, "data", "benchmark")
        seconds = self.table(network, "seconds_per_slice", "network", required=False)
        statement = Statement(
            name=self.text(values, "name"),
            authors=self.texts(values, "authors", least=1),
            reference=self.text(values, "reference"),
            licence=self.text(values, "licence"),
            subjects=self.texts(training, "subjects", "training"),
            other_data=self.text(training, "other_data", "training"),
            parameters=self.parameters(network),
            hardware=self.text(network, "hardware", "network", required=False),
            seconds_per_slice=self.seconds(seconds, definition),
            benchmark=self.text(benchmark, "version", "benchmark"),
            data={task: self.text(data, task, "benchmark.data") for task in list(data)},
        )
        for where, rest in (
            ("", values),
            ("training.", training),
            ("network.", network),
            ("network.seconds_per_slice.", seconds),
            ("benchmark.", benchmark),
        ):
            for key in rest:
                self.fault(f"{where}{key}", "is unknown; leave it out")
        self.version(statement, definition)
        return statement

    def fault(self, key: str, what: str) -> None:
        self._faults.add(f"{self._path}: {printable(key)} {what}")

    def table(
        self, values: dict[str, Any], key: str, where: str = "", *, required: bool = True
    ) -> dict[str, Any]:
        found = values.pop(key, None)
        if isinstance(found, dict):
            return dict(found)
        if found is not None or required:
            self.fault(f"[{where and where + '.'}{key}]", "is missing, or not a table; add it")
        return {}

    def text(
        self, values: dict[str, Any], key: str, where: str = "", *, required: bool = True
    ) -> str:
        found = values.pop(key, None)
        if found is None and not required:
            return ""
        if self._is_text(found) and (found.strip() or not required):
            return str(found).strip()
        self.fault(
            f"{where and where + '.'}{key}",
            f"is not a text of 1 to {_LONGEST} characters; give one",
        )
        return ""

    def texts(
        self, values: dict[str, Any], key: str, where: str = "", least: int = 0
    ) -> tuple[str, ...]:
        found = values.pop(key, None)
        is_list = isinstance(found, list) and least <= len(found) <= _LONGEST
        if is_list and all(self._is_text(item) and item.strip() for item in found):
            return tuple(item.strip() for item in found)
        self.fault(
            f"{where and where + '.'}{key}", f"is not a list of {least} or more texts; give it"
        )
        return ()

    @staticmethod
    def _is_text(value: object) -> bool:
        return isinstance(value, str) and len(value) <= _LONGEST and printable(value) == value

    def parameters(self, network: dict[str, Any]) -> int | None:
        found = network.pop("parameters", None)
        if found is None:
            return None
        if type(found) is int and 0 <= found < 10**15:
            return found
        self.fault("network.parameters", "is not a whole number from 0; correct it or leave it out")
        return None

    def seconds(self, values: dict[str, Any], definition: Definition) -> dict[str, float]:
        found = {}
        for task in [task for task in definition.data if task in values]:
            value = values.pop(task)
            if type(value) in (int, float) and 0 < value < math.inf:
                found[task] = float(value)
            else:
                self.fault(f"network.seconds_per_slice.{task}", "is not above 0; correct it")
        return found

    def version(self, statement: Statement, definition: Definition) -> None:
        if statement.benchmark and statement.benchmark != definition.version:
            self.fault(
                "benchmark.version",
                f"is {statement.benchmark!r}, this is {definition.version!r}; restore the "
                "inputs of this version",
            )
        for task, digest in statement.data.items():
            if definition.data.get(task) != digest:
                self.fault(
                    f"benchmark.data.{task}",
                    "is not the digest of this benchmark; restore its inputs",
                )
