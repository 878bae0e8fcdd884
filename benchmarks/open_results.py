"""The results of the open benchmark: studies of all tasks as one, methods, and the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.open_definition import Definition
from benchmarks.open_submissions import Submission
from benchmarks.open_tables import Method, citation, table
from restore_rwkv.evaluation import Study
from restore_rwkv.evaluation.report.page import write_report
from restore_rwkv.evaluation.study.tables import study_values, write_csv
from restore_rwkv.io import atomic_files
from restore_rwkv.model import WeightsInfo

FORMAT = "restore-rwkv open benchmark results 1"
FILES = ("results.json", "scores.csv", "report.html", "table.md")


def joined(studies: Sequence[Study]) -> Study:
    """Return the studies of several tasks as one."""
    measures = {m.name: m for study in studies for m in study.measures}
    names = dict.fromkeys(name for study in studies for name in study.methods)
    provenance = dict(studies[0].provenance)
    provenance["measures"] = list(measures)
    for key in ("data", "methods"):
        provenance[key] = {k: v for study in studies for k, v in study.provenance[key].items()}
    return replace(
        studies[0],
        methods=tuple(names),
        measures=tuple(measures.values()),
        scores=tuple(x for study in studies for x in study.scores),
        summaries=tuple(x for study in studies for x in study.summaries),
        tests=tuple(x for study in studies for x in study.tests),
        panels=tuple(x for study in studies for x in study.panels),
        spectra=tuple(x for study in studies for x in study.spectra),
        provenance=provenance,
        sets={task: text for study in studies for task, text in study.sets.items()},
    )


def methods_of(
    weights: Mapping[str, tuple[Path, WeightsInfo]],
    submissions: Sequence[Submission],
    seconds: Mapping[str, Mapping[str, float]],
) -> dict[str, Method]:
    """Return what tables say of each method, by name."""
    found = {
        name: Method(
            name=name,
            kind="weights",
            sha256=info.sha256,
            parameters=info.parameters,
            seconds=seconds.get(name, {}),
        )
        for name, (_, info) in weights.items()
    }
    for submission in submissions:
        statement = submission.statement
        trained = ", ".join(statement.subjects) or "none of the open scans"
        remark = [
            ", ".join(statement.authors),
            statement.reference,
            f"trained on {trained}; other data: {statement.other_data}",
            f"licence {statement.licence}",
            *([f"seconds on {statement.hardware}"] if statement.hardware else []),
        ]
        found[submission.name] = Method(
            name=submission.name,
            kind="submission",
            sha256=submission.sha256,
            parameters=statement.parameters,
            seconds=statement.seconds_per_slice,
            remark="; ".join(remark),
        )
    return found


def write(
    folder: Path,
    definition: Definition,
    study: Study,
    methods: Mapping[str, Method],
    code: Mapping[str, Any],
    note: str,
) -> None:
    """Write all files of the results, together or not at all.

    Args:
        folder: output folder.
        definition: of the benchmark.
        study: of all tasks.
        methods: by name.
        code: as `code_of` returns it.
        note: how seconds were measured; "" where they were not.
    """
    tasks = list(study.sets)
    cited = citation(definition, tasks, methods, code, study.provenance["packages"])
    text = "\n".join([*(table(study, task, methods, note) for task in tasks), cited, ""])
    of_methods = {name: _plain(method) for name, method in methods.items()}
    provenance = {**study.provenance, "methods": of_methods, "code": code}
    provenance |= {"benchmark": definition.version, "definition": definition.sha256}
    study = replace(study, provenance=provenance)
    results = {
        "format": FORMAT,
        "benchmark": {"sha256": definition.sha256, **vars(definition)},
        "code": code,
        "methods": of_methods,
        "citation": cited.splitlines()[1:-1],
        "study": study_values(study),
    }
    with atomic_files(*(folder / name for name in FILES), overwrite=True) as temporaries:
        values, scores, report, tables = temporaries
        values.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        write_csv(study, scores)
        write_report(study, report)
        tables.write_text(text, encoding="utf-8")


def _plain(method: Method) -> dict[str, Any]:
    return {**vars(method), "seconds": dict(method.seconds)}
