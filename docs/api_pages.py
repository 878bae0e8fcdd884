"""Pages of the API reference: each public name of each room, from the rooms' `__all__`."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

ROOMS = {
    "restore_rwkv": "The whole toolkit in one import",
    "restore_rwkv.restoration": "From a scan to the restored scan",
    "restore_rwkv.batch": "Many scans at once",
    "restore_rwkv.evaluation": "How good an image is",
    "restore_rwkv.evaluation.measures": "What is measured",
    "restore_rwkv.evaluation.study": "Several methods on the same scans",
    "restore_rwkv.evaluation.report": "The page that shows a study",
    "restore_rwkv.evaluation.physical": "Noise, sharpness, detection, uptake",
    "restore_rwkv.evaluation.fidelity": "What supports a restored image",
    "restore_rwkv.evaluation.challenge": "Lesions planted in good scans",
    "restore_rwkv.training": "One network from a recipe",
    "restore_rwkv.data": "Prepared sets",
    "restore_rwkv.data.sources": "What prepared sets are made from",
    "restore_rwkv.data.open_scans": "Openly licensed scans",
    "restore_rwkv.tasks": "What a scan is taken for",
    "restore_rwkv.model": "The network and its files",
    "restore_rwkv.model.export": "Networks as ONNX",
    "restore_rwkv.peers": "Networks to compare with",
    "restore_rwkv.physics.mri": "Low-resolution MRI",
    "restore_rwkv.physics.ct": "Low-dose CT",
    "restore_rwkv.physics.pet": "Low-dose PET",
    "restore_rwkv.physics.rays": "Projections",
    "restore_rwkv.ops": "The attention operator",
    "restore_rwkv.io": "Images in and out",
    "restore_rwkv.io.dicom": "DICOM series",
    "restore_rwkv.errors": "Errors",
}
"""Modules with a page of their own, in the order of the table of contents."""


def public_names(module: ModuleType) -> list[str]:
    """Names that a module offers: its `__all__`, or else what it defines without a `_`."""
    offered = getattr(module, "__all__", None)
    if offered is None:
        room = f"{module.__name__}."
        offered = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and f"{getattr(value, '__module__', '')}.".startswith(room)
        ]
    return sorted(name for name in offered if not inspect.ismodule(getattr(module, name)))


Homes = dict[tuple[str, int], str]


def homes() -> Homes:
    """Full name of every public object, by its name and `id`: where it is described.

    The root offers names of the rooms once more; they are described in their rooms.
    """
    found: Homes = {}
    for room in [*list(ROOMS)[1:], "restore_rwkv"]:
        module = importlib.import_module(room)
        for name in public_names(module):
            found.setdefault((name, id(getattr(module, name))), f"{room}.{name}")
    return found


def page(room: str, title: str, home: Homes) -> str:
    """The reStructuredText of a module's page: a table of its names, then their descriptions."""
    module = importlib.import_module(room)
    lines = [title, "=" * len(title), "", f".. automodule:: {room}", "   :no-members:", ""]
    names = public_names(module)
    if names:
        lines += [".. list-table::", "   :widths: 30 70", ""]
    for name in names:
        value = getattr(module, name)
        lines += [f"   * - :py:obj:`~{home[name, id(value)]}`", f"     - {_summary(name, value)}"]
    for name in names:
        value = getattr(module, name)
        if home[name, id(value)] == f"{room}.{name}":
            lines += ["", *_description(room, name, value)]
    return "\n".join(lines) + "\n"


def _is_data(value: object) -> bool:
    return not (inspect.isclass(value) or inspect.isroutine(value)) or hasattr(value, "__origin__")


def _summary(name: str, value: object) -> str:
    text = _data_doc(name, value) if _is_data(value) else inspect.getdoc(value) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def _data_doc(name: str, value: object) -> str:
    """The string below a constant in the file that defines it; for an alias its value."""
    from sphinx.pycode import ModuleAnalyzer

    for module in sorted(module for module in sys.modules if module.startswith("restore_rwkv.")):
        if vars(sys.modules[module]).get(name) is value:
            documented = ModuleAnalyzer.for_module(module).find_attr_docs()
            if ("", name) in documented:
                return "\n".join(documented["", name]).strip()
    text = repr(value).replace("typing.", "")
    return f"``{text}``" if len(text) < 80 else "A constant."


def _description(room: str, name: str, value: object) -> list[str]:
    if _is_data(value):
        text = _data_doc(name, value).splitlines()
        return [f".. py:data:: {room}.{name}", "", *(f"   {line}".rstrip() for line in text)]
    if inspect.isclass(value):
        bases = ["   :show-inheritance:"] if issubclass(value, Exception) else []
        return [f".. autoclass:: {room}.{name}", "   :members:", *bases]
    return [f".. autofunction:: {room}.{name}"]


def write_api_pages(folder: Path) -> None:
    """Write the pages of all rooms and their index; pages that have not changed keep their date."""
    folder.mkdir(exist_ok=True)
    home = homes()
    index = ["API reference", "=============", "", ".. list-table::", "   :widths: 40 60", ""]
    for room, title in ROOMS.items():
        _write(folder / f"{room}.rst", page(room, title, home))
        index += [f"   * - :doc:`{room} <{room}>`", f"     - {title}"]
    index += ["", ".. toctree::", "   :hidden:", ""]
    index += [f"   {room} <{room}>" for room in ROOMS]
    _write(folder / "index.rst", "\n".join(index) + "\n")


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
