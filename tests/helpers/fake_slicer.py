"""As much of 3D Slicer as its module asks for: volume nodes, and their files by ITK.

Slicer too reads and writes NIfTI by ITK, whose world is LPS+ where a node's is RAS+. Widgets are
mocks. It shows that the module handles order and place of voxels rightly, not that Slicer runs it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import SimpleITK

from tests.helpers import ROOT

MODULE = ROOT / "integrations" / "slicer" / "RestoreRWKV" / "RestoreRWKV.py"
_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS+ to LPS+ and back


class Matrix:
    """A `vtkMatrix4x4`."""

    def __init__(self) -> None:
        self.values = np.eye(4)


class Node:
    """A `vtkMRMLScalarVolumeNode`: values in the order K, J, I, and its place in RAS."""

    def __init__(self, name: str, values: Any, matrix: Any) -> None:
        self.name, self.values, self.matrix = name, values, np.array(matrix, float)
        self.attributes: dict[str, str] = {}
        self.transform: str | None = None
        self.display: Any = None
        self.storage: Any = None

    def GetName(self) -> str:
        return self.name

    def GetIJKToRASMatrix(self, into: Matrix) -> None:
        into.values = self.matrix.copy()

    def SetIJKToRASMatrix(self, matrix: Matrix) -> None:
        self.matrix = matrix.values.copy()

    def GetTransformNodeID(self) -> str | None:
        return self.transform

    def SetAndObserveTransformNodeID(self, name: str | None) -> None:
        self.transform = name

    def GetStorageNode(self) -> Any:
        return self.storage

    def GetDisplayNode(self) -> Any:
        return self.display

    def CreateDefaultDisplayNodes(self) -> None:
        self.display = MagicMock()

    def SetAttribute(self, name: str, value: str) -> None:
        self.attributes[name] = value


def save_node(node: Node, path: str) -> bool:
    """Write a node as Slicer does."""
    spacing = np.linalg.norm(node.matrix[:3, :3], axis=0)
    lps = _TURN @ node.matrix
    image = SimpleITK.GetImageFromArray(node.values)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, path)
    return True


def load_volume(path: str, properties: dict[str, Any]) -> Node:
    """Read a node as Slicer does."""
    image = SimpleITK.ReadImage(path)
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    node = Node(properties["name"], SimpleITK.GetArrayFromImage(image), _TURN @ lps)
    node.storage = f"storage of {path}"
    return node


class _Widgets(ModuleType):
    """A module in which every name makes a widget that takes everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: MagicMock()


class _Module:
    """Base class of what a scripted module defines."""

    def __init__(self, parent: Any = None) -> None:
        self.parent, self.layout = parent, MagicMock()

    def setup(self) -> None:
        """Build nothing."""


def slicer_module(monkeypatch: Any) -> ModuleType:
    """Return the module of Slicer, imported beside the fakes; `slicer.util` is among its names."""
    util = SimpleNamespace(
        exportNode=save_node,
        loadVolume=load_volume,
        startupEnvironment=lambda: dict(os.environ),
        arrayFromVTKMatrix=lambda matrix: matrix.values,
        arrayFromVolume=lambda node: node.values,
        setSliceViewerLayers=MagicMock(),
    )
    slicer: Any = ModuleType("slicer")
    slicer.util, slicer.mrmlScene = util, MagicMock()
    slicer.qMRMLNodeComboBox = MagicMock
    base: Any = ModuleType("slicer.ScriptedLoadableModule")
    for name in ("", "Logic", "Widget"):
        setattr(base, f"ScriptedLoadableModule{name}", _Module)
    vtk = SimpleNamespace(vtkMatrix4x4=Matrix)
    qt: Any = MagicMock()
    for name in ("QPushButton", "QLineEdit", "QComboBox", "QCheckBox", "QLabel"):
        getattr(qt, name).side_effect = lambda *_: MagicMock()  # each call makes another widget
    fakes = {"slicer": slicer, base.__name__: base, "vtk": vtk, "qt": qt, "ctk": MagicMock()}
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    spec = importlib.util.spec_from_file_location("RestoreRWKV", Path(MODULE))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "RestoreRWKV", module)
    spec.loader.exec_module(module)
    return module
