"""Reports of the fidelity: asked for, refused where there are none, and shown in a sandbox."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from restore_rwkv.apps.page.restoring import REPORT
from restore_rwkv.restoration import Restorer
from tests.helpers.local_page import Visitor


def fake_module() -> ModuleType:
    """A module that restores, and writes a page and one map."""

    def restore_with_report(
        restorer: Restorer, source: Path, target: Path, options: Any, *, report: Any, **how: Any
    ) -> SimpleNamespace:
        restored = restorer.file(source, target, options, **how)
        page = target.with_name("ct-restored.fidelity.html")
        page.write_text(f"<p>uncertainty: {report.uncertainty}</p>")
        removed = SimpleNamespace(
            **{"name": "removed", "title": "structure removed", "volume": restored.volume},
            **{"unit": "", "limit": 5.0, "threshold": 3.0, "signed": True},
            **{"meaning": "what it says", "blind_to": "what it cannot see"},
        )
        return SimpleNamespace(
            restored=restored,
            fidelity=SimpleNamespace(maps=(removed,)),
            files=SimpleNamespace(page=page),
        )

    module = ModuleType(REPORT)
    vars(module).update(restore_with_report=restore_with_report, ReportOptions=SimpleNamespace)
    return module


def test_a_report_is_shown_where_it_can_reach_nothing(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, REPORT, fake_module())
    (scan,) = visitor.scans()
    job = visitor.job(visitor.start(scan["id"], report=True, uncertainty="turns")["id"])
    assert job["state"] == "done", job["error"]
    answer = visitor.get(job["outputs"]["report"])
    assert answer.text == "<p>uncertainty: turns</p>"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; ")
    assert "connect-src" not in policy
    (removed,) = job["outputs"]["maps"]
    assert (removed["name"], removed["limit"], removed["signed"]) == ("removed", 5.0, True)
    assert visitor.get(removed["url"]).status_code == 200
    assert visitor.get(removed["url"].replace("removed", "after")).status_code == 404


def test_a_report_is_refused_in_one_line_where_there_is_none(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name, name=REPORT)

    monkeypatch.setattr("restore_rwkv.apps.page.restoring.importlib.import_module", missing)
    (scan,) = visitor.scans()
    answer = visitor.post("/api/jobs", json={"scan": scan["id"], "report": True})
    assert answer.status_code == 400
    assert answer.json()["error"] == "report: this version cannot make one; leave report out"
    job = visitor.job(visitor.start(scan["id"])["id"])
    assert visitor.get(f"/api/jobs/{job['id']}/report").status_code == 404
