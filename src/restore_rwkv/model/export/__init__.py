"""Networks as ONNX: the export, its comparison with PyTorch, and exports run by ONNX Runtime."""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.model.export.export import Cost, Exported, export_onnx
    from restore_rwkv.model.export.parity import Parity
    from restore_rwkv.model.export.runtime import ExportedNetwork

__all__ = ["Cost", "Exported", "ExportedNetwork", "Parity", "export_onnx"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.model.export.export": ["Cost", "Exported", "export_onnx"],
        "restore_rwkv.model.export.parity": ["Parity"],
        "restore_rwkv.model.export.runtime": ["ExportedNetwork"],
    },
)
