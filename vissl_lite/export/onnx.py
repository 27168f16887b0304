"""A graph with its weights, for ONNX Runtime and other programs."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vissl_lite.errors import ConfigError
from vissl_lite.export.subject import Features, Subject
from vissl_lite.export.target import Target

ONE_FILE = 2**31 - 2**20  # bytes; protobuf ends at 2 GiB, beyond it weights are in a file beside


class Onnx(Target):
    """images [N, C, side, side], normalised, float32 -> features [N, F]; N is free."""

    ending = ".onnx"
    program = "onnxruntime"

    def __init__(self, subject: Subject):
        super().__init__(subject)
        if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
            raise ConfigError(
                f"export: --to onnx needs {' and '.join(missing)};"
                " pip install onnx onnxscript onnxruntime"
            )

    def write(self, file: Path) -> None:
        trunk = self.subject.trunk
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about itself
            # strict: otherwise a len(x) in a trunk would fix N to that of the probe
            graph = torch.export.export(
                _network(self.subject),
                (self.subject.probe(),),
                dynamic_shapes=({0: torch.export.Dim("N")},),
                strict=True,
            )
            program: Any = torch.onnx.export(
                graph,
                input_names=["images"],
                output_names=["features"],
                dynamo=True,
                verbose=False,
            )
        program.model.metadata_props.update(self.subject.card())
        size = sum(t.numel() * t.element_size() for t in trunk.state_dict().values())
        program.save(file, external_data=size > ONE_FILE)

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor | None:
        if find_spec("onnxruntime") is None:
            return None
        import onnxruntime  # pyright: ignore[reportMissingImports]

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["features"], {"images": x_NCHW.numpy()})[0])

    def usage(self, file: Path) -> str:
        return (
            f"import onnxruntime\nsession = onnxruntime.InferenceSession({str(file)!r})\n"
            "features = session.run(['features'], {'images': images})[0]"
        )


def _network(subject: Subject) -> nn.Module:
    """The trunk with its pooling; of an adapter that interprets a graph, the model itself."""
    if subject.config["name"] == "torchvision":
        return nn.Sequential(subject.trunk.model, nn.Flatten()).eval()
    return Features(subject.trunk).eval()
