"""Runs the notebook of the examples anew and writes its outputs into it.

    python -m benchmarks.notebook

Outputs hold nothing of the machine that they were made on: no times of cells, no addresses in
memory, no state of widgets.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "in_a_notebook.ipynb"
_SECONDS = 600  # of one cell


def executed(path: Path) -> Any:
    """Return a notebook run from its top in a kernel of its own; an error in a cell is raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=_SECONDS,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        client.resources = {"metadata": {"path": folder}}
        environment = os.environ | {"IPYTHONDIR": folder, "OMP_NUM_THREADS": "2"}
        client.execute(env=environment)
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """Remove what differs from run to run and says nothing."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).clear()
            data = output.get("data", {})
            if "text/plain" in data:
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    return notebook


def kinds(notebook: Any) -> list[list[tuple[str, ...]]]:
    """Return what kinds of outputs each cell has: of streams their names, else MIME types."""
    return [
        [
            (output.name,) if output.output_type == "stream" else tuple(sorted(output.data))
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def main() -> None:
    """Run the example and write it."""
    import nbformat

    nbformat.write(executed(EXAMPLE), EXAMPLE)
    print(f"{EXAMPLE.name}: {EXAMPLE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
