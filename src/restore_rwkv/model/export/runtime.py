"""An exported network, run by ONNX Runtime in place of PyTorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from restore_rwkv.errors import WeightsError
from restore_rwkv.model.config import RestoreRWKVConfig
from restore_rwkv.model.export.file import needed, read_model
from restore_rwkv.model.export.graph import IMAGE, NOISE_LEVEL, RESTORED
from restore_rwkv.model.network import check_input

if TYPE_CHECKING:
    import onnx

_ERRORS_ONLY = 3


class ExportedNetwork(nn.Module):
    """A network that ONNX Runtime computes on the CPU; for inference only.

    Args:
        model: as `read_model` or `build_graph` returns it.
        config: configuration of the network that it was exported from.
        name: of its file, for messages.

    Attributes:
        config: configuration of the network that it was exported from.
        is_merged: True, as only inference forms are exported.
        name: of its file.
        runtime: what runs it, such as "onnxruntime 1.20.0".

    Raises:
        ConfigError: ONNX Runtime is not installed.
        WeightsError: ONNX Runtime cannot run it, or its inputs do not suit the configuration.
    """

    def __init__(self, model: onnx.ModelProto, config: RestoreRWKVConfig, name: str) -> None:
        super().__init__()
        self.config = config
        self.is_merged = True
        self.name = name
        runtime = needed("onnxruntime", name)
        self.runtime = f"onnxruntime {runtime.__version__}"
        # Where the network is, as `parameters()` of others say.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        self._session = self._opened(runtime, model)
        expected = [IMAGE, NOISE_LEVEL] if config.noise_level else [IMAGE]
        if [x.name for x in self._session.get_inputs()] != expected:
            raise WeightsError(f"{name}: its inputs do not suit its record; export it again")

    def forward(self, image: Tensor, noise_level: Tensor | float | None = None) -> Tensor:
        """Restore an image; arguments, result and errors are those of `RestoreRWKV.forward`.

        Raises:
            WeightsError: ONNX Runtime cannot compute it.
            MemoryError: it has too little memory.
        """
        check_input(self.config, image, noise_level)
        feed = {IMAGE: image.detach().float().contiguous().numpy()}
        if self.config.noise_level:
            level = torch.as_tensor(0.0 if noise_level is None else noise_level)
            feed[NOISE_LEVEL] = level.float().reshape(-1).expand(len(image)).contiguous().numpy()
        try:
            (restored,) = self._session.run([RESTORED], feed)
        except Exception as error:  # of ONNX Runtime, whose kinds have no common base
            if re.search("alloc", str(error)):
                raise MemoryError(str(error)) from error
            raise self._unusable(error) from error
        if restored.shape != image.shape:
            raise self._unusable(f"its output is {restored.shape}")
        return torch.from_numpy(restored).to(image.dtype)

    def _opened(self, runtime: Any, model: onnx.ModelProto) -> Any:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False  # from the second run, it would take twice the memory
        try:
            # From bytes, so that it has no folder in which it could find other files.
            return runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise self._unusable(error) from error

    def _unusable(self, reason: object) -> WeightsError:
        text = " ".join(str(reason).split())[:200]
        return WeightsError(
            f"{self.name}: {self.runtime} cannot run it ({text}); export it again, or use the "
            "weight file with PyTorch"
        )


def load_exported(path: str | Path, config: RestoreRWKVConfig) -> ExportedNetwork:
    """Return an exported network with the configuration that its record has.

    Raises:
        WeightsError: the file is missing, damaged or foreign, see `read_model`.
        ConfigError: a package of the extra `onnx` is not installed.
    """
    return ExportedNetwork(read_model(path), config, Path(path).name)
