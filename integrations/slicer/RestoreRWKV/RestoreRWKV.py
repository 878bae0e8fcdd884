"""A module of 3D Slicer that restores a volume with Restore-RWKV.

The restoration runs as `restore-rwkv restore` in a Python of its own, not in Slicer's: PyTorch then
meets none of Slicer's libraries, a run that fails or needs too much memory ends only itself, and it
can be cancelled at any moment. Slicer writes and reads the NIfTI files in between, so that its own
code turns its RAS and index order into those of the file.

For research only. Not a medical device; not for diagnosis or treatment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ctk
import numpy as np
import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

TASKS = ("mri-sr", "ct-denoise", "pet-synth")
NOTICE = "For research only. Not a medical device; not for diagnosis or treatment."
_SETTING = "RestoreRWKV/Program"
_MOVED = 1e-3  # mm, by which the corner of a voxel may differ: NIfTI rounds to 32 bit
_MILLISECONDS = 200  # between two looks at the program


class RestoreRWKV(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent) -> None:
        super().__init__(parent)
        parent.title = "Restore-RWKV"
        parent.categories = ["Filtering.Denoising"]
        parent.dependencies = []
        parent.contributors = ["restore-rwkv contributors"]
        parent.helpText = f"Restores MRI, CT and PET with the program restore-rwkv. {NOTICE}"
        parent.acknowledgementText = "Yang et al., IEEE JBHI 30(1):513-526, 2026."


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        program: path of the program `restore-rwkv`, or its name if it is on the PATH.
        task: one of `TASKS`; the files that Slicer writes do not say what a scan is.
        weights: name of shipped weights or path of a file; empty for the task's own.
        strength: part of the correction that is applied to CT and PET; None for the calibrated one.
        suv: whether the values of a PET scan are SUV; else Bq/ml are expected.
    """

    program: str
    task: str
    weights: str = ""
    strength: float | None = None
    suv: bool = False


class Run:
    """A restoration in a folder of its own, from its start to `close`."""

    def __init__(self, node, choice: Choice) -> None:
        program = shutil.which(choice.program)
        if program is None:
            raise RuntimeError(
                f"{choice.program or 'program'}: not found; install it with pip install "
                "restore-rwkv in a Python of its own, and give the path of restore-rwkv"
            )
        self.node = node
        self.folder = Path(tempfile.mkdtemp(prefix="restore-rwkv-"))
        self.restored = self.folder / "restored.nii.gz"
        try:
            scan = self.folder / "scan.nii.gz"
            if not slicer.util.exportNode(node, str(scan)):
                raise RuntimeError(f"{node.GetName()}: cannot be written as NIfTI; see the log")
            command = [program, *arguments(choice, scan, self.restored)]
            # Not Slicer's own, whose paths would lead another Python to Slicer's libraries.
            environment = dict(slicer.util.startupEnvironment())
            with open(self.folder / "errors.txt", "wb") as errors:
                self.process = subprocess.Popen(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=errors
                )
        except BaseException:
            self.close()
            raise

    def ended(self) -> bool:
        """Whether the program has ended."""
        return self.process.poll() is not None

    def result(self):
        """Return the new volume node of a program that has ended; RuntimeError says why not."""
        if self.process.returncode != 0:
            said = (self.folder / "errors.txt").read_text("utf-8", "replace").strip().splitlines()
            line = said[-1] if said else f"the program ended with {self.process.returncode}"
            raise RuntimeError(line)
        try:
            record = (self.folder / "restored.restoration.json").read_text("utf-8")
        except OSError as error:
            raise RuntimeError(
                f"{self.process.args[0]}: wrote no record ({error.strerror}); give the path of "
                "restore-rwkv, and update it"
            ) from error
        name = f"{self.node.GetName()} restored"
        result = slicer.util.loadVolume(str(self.restored), {"name": name, "show": False})
        storage = result.GetStorageNode()
        if storage is not None:  # it names a file that is removed
            slicer.mrmlScene.RemoveNode(storage)
        try:
            place_like(result, self.node)
        except RuntimeError:
            slicer.mrmlScene.RemoveNode(result)
            raise
        result.SetAttribute("restore-rwkv.record", record)
        result.SetAttribute("restore-rwkv.notice", NOTICE)
        return result

    def close(self) -> None:
        """End the program if it still runs, and remove the files."""
        process = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def arguments(choice: Choice, scan: Path, restored: Path) -> list[str]:
    """Return the arguments of the program."""
    options = ["--task", choice.task, "--quiet"]
    if choice.weights:
        options += ["--weights", choice.weights]
    if choice.strength is not None:
        options += ["--strength", f"{choice.strength:g}"]
    if choice.suv:
        options += ["--unit", "SUV"]
    return ["restore", str(scan), "-o", str(restored), *options]


def place_like(result, node) -> None:
    """Give a restored node the exact place, transform and window of its scan.

    Raises:
        RuntimeError: its grid is another one, so that the values would be shown in a wrong place.
    """
    place, found = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(place)
    result.GetIJKToRASMatrix(found)
    before, after = (slicer.util.arrayFromVTKMatrix(matrix) for matrix in (place, found))
    shapes = [slicer.util.arrayFromVolume(each).shape for each in (node, result)]
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners[:, :3] *= np.array(shapes[0][::-1]) - 1  # arrays are in the order K, J, I
    moved = np.abs(corners @ (after - before).T).max()
    if shapes[0] != shapes[1] or moved > _MOVED:
        raise RuntimeError(
            f"{node.GetName()}: came back on another grid, {moved:.3g} mm off; please report it"
        )
    result.SetIJKToRASMatrix(place)
    result.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    shown = node.GetDisplayNode()
    if shown is not None:
        result.CreateDefaultDisplayNodes()
        display = result.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(shown.GetWindow(), shown.GetLevel())


class RestoreRWKVLogic(ScriptedLoadableModuleLogic):
    """The restoration without the panel, for scripts."""

    def restore(self, node, choice: Choice):
        """Restore a volume node and return a new one; waits until that is done."""
        run = Run(node, choice)
        try:
            run.process.wait()
            return run.result()
        finally:
            run.close()


class RestoreRWKVWidget(ScriptedLoadableModuleWidget):
    """The panel: choices, two buttons, and a line about what came of it."""

    def setup(self) -> None:
        """Build the panel."""
        super().setup()
        self.run = None
        form = qt.QFormLayout(self._section("Restore a scan"))
        self.scan = slicer.qMRMLNodeComboBox()
        self.scan.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.scan.addEnabled = self.scan.removeEnabled = self.scan.renameEnabled = False
        self.scan.setMRMLScene(slicer.mrmlScene)
        self.task = qt.QComboBox()
        self.task.addItems(list(TASKS))
        self.weights = qt.QLineEdit()
        self.weights.placeholderText = "the task's own; or a name, or a file"
        self.strength = qt.QLineEdit()
        self.strength.placeholderText = "CT and PET: 0 to 1; empty for the calibrated one"
        self.suv = qt.QCheckBox("PET: values are SUV")
        self.program = qt.QLineEdit(qt.QSettings().value(_SETTING, "restore-rwkv"))
        for label, widget in (
            ("Scan:", self.scan),
            ("Task:", self.task),
            ("Weights:", self.weights),
            ("Strength:", self.strength),
            ("", self.suv),
            ("Program:", self.program),
        ):
            form.addRow(label, widget)
        self.apply, self.stop = qt.QPushButton("Restore"), qt.QPushButton("Cancel")
        self.line = qt.QLabel(NOTICE)
        self.line.wordWrap = True
        for widget in (self.apply, self.stop, self.line):
            form.addRow(widget)
        self.stop.enabled = False
        self.apply.connect("clicked(bool)", self.start)
        self.stop.connect("clicked(bool)", self.cancel)
        self.timer = qt.QTimer()
        self.timer.setInterval(_MILLISECONDS)
        self.timer.connect("timeout()", self.look)
        self.layout.addStretch(1)

    def _section(self, title: str):
        section = ctk.ctkCollapsibleButton()
        section.text = title
        self.layout.addWidget(section)
        return section

    def start(self, *_) -> None:
        """Start the program for the chosen scan."""
        node = self.scan.currentNode()
        try:
            if node is None:
                raise RuntimeError("no scan is chosen; load a volume, and choose it")
            self.run = Run(node, self.choice())
        except (RuntimeError, OSError) as error:
            self.line.text = f"error: {error}"
            return
        qt.QSettings().setValue(_SETTING, self.program.text)
        self.apply.enabled, self.stop.enabled = False, True
        self.line.text = f"restoring {node.GetName()}"
        self.timer.start()

    def choice(self) -> Choice:
        """Return what the panel says; RuntimeError where the strength is not a number."""
        text = self.strength.text.strip()
        try:
            strength = float(text) if text else None
        except ValueError:
            raise RuntimeError(f"strength {text!r}: give a number from 0 to 1") from None
        program = os.path.expanduser(self.program.text.strip())
        weights = self.weights.text.strip()
        return Choice(program, self.task.currentText, weights, strength, bool(self.suv.checked))

    def look(self) -> None:
        """Show the result once the program has ended."""
        if self.run is None or not self.run.ended():
            return
        try:
            result = self.run.result()
            slicer.util.setSliceViewerLayers(background=result)
            self.line.text = f"{result.GetName()} is there. {NOTICE}"
        except (RuntimeError, OSError) as error:
            self.line.text = f"error: {error}"
        finally:
            self._end()

    def cancel(self, *_) -> None:
        """End the program."""
        self.line.text = "cancelled"
        self._end()

    def cleanup(self) -> None:
        """End what still runs when Slicer closes the module."""
        self._end()

    def _end(self) -> None:
        self.timer.stop()
        if self.run is not None:
            self.run.close()
        self.run = None
        self.apply.enabled, self.stop.enabled = True, False
