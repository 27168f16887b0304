"""A folder as on the Hugging Face Hub: config, weights, preprocessing, model card."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from vissl_lite.errors import ConfigError
from vissl_lite.export.counterparts import counterpart
from vissl_lite.export.modelcard import model_card
from vissl_lite.export.preprocess import for_timm, for_transformers, transforms
from vissl_lite.export.subject import Subject
from vissl_lite.export.target import Call, Target
from vissl_lite.export.timm import Timm

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OF_TIMM = (  # what its config says of its own weights of a network
    *("tag", "license", "origin_url", "paper_name", "paper_ids", "notes", "description"),
    *("test_input_size", "test_crop_pct", "label_names", "label_descriptions"),
)


class HuggingFace(Target):
    """For transformers, by its own ResNet, RegNet, ViT or Dinov2; for timm where it has none.

    Raises:
        ConfigError: neither has such a network.
    """

    ending = "-huggingface"

    def __init__(self, subject: Subject):
        super().__init__(subject)
        try:
            self.reader: Target = ForTransformers(subject)
        except ConfigError as error:
            self.reader = _for_timm(subject, error)
        self.program = self.reader.program

    def write(self, file: Path) -> None:
        file.mkdir()
        self.reader.write(file)
        card = model_card(self.subject, file.name, self.program, self.reader.usage(Path(file.name)))
        (file / "README.md").write_text(card, encoding="utf-8")

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor | None:
        return self.reader.features(file, x_NCHW)

    def usage(self, file: Path) -> str:
        return self.reader.usage(file)


def _for_timm(subject: Subject, refused: ConfigError) -> Target:
    try:
        return ForTimm(subject)
    except ConfigError as error:
        raise ConfigError(*refused.problems, *error.problems) from None


class ForTransformers(Target):
    """config.json, preprocessor_config.json and model.safetensors for transformers."""

    program = "transformers"

    def __init__(self, subject: Subject):
        super().__init__(subject)
        self.config, self.tensors = counterpart(subject)
        self.preprocessor = for_transformers(subject)
        vit = self.config["model_type"] == "vit"  # its pooler is a layer that we do not have
        self.keywords = {"add_pooling_layer": False} if vit else {}
        self.has_tokens = "patch_size" in self.config

    def write(self, file: Path) -> None:
        _write_json(file / CONFIG, self.config)
        if self.preprocessor is not None:
            _write_json(file / "preprocessor_config.json", self.preprocessor)
        safetensors.torch.save_file(self.tensors, file / WEIGHTS, {"format": "pt"})

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor | None:
        if find_spec("transformers") is None:
            return None
        import transformers  # pyright: ignore[reportMissingImports]

        transformers.utils.logging.disable_progress_bar()
        network = getattr(transformers, self.config["architectures"][0])
        outputs = network.from_pretrained(file, **self.keywords)(x_NCHW)
        if self.has_tokens:
            return outputs.last_hidden_state[:, 0]
        return outputs.pooler_output.flatten(1)

    def usage(self, file: Path) -> str:
        load = Call("AutoModel.from_pretrained", (str(file),), self.keywords)
        out = "last_hidden_state[:, 0]" if self.has_tokens else "pooler_output.flatten(1)"
        lines = ["from transformers import AutoImageProcessor, AutoModel", f"model = {load}"]
        if self.preprocessor is None:
            lines[0] = "from transformers import AutoModel"
            seen = ", ".join(t["name"] for t in transforms(self.subject))
            shown = f"# no preprocessor_config.json: images are normalised, and shown by {seen}"
            return "\n".join([shown, *lines, f"features = model(images).{out}"])
        processor = Call("AutoImageProcessor.from_pretrained", (str(file),))
        inputs = "**processor(images, return_tensors='pt')"
        return "\n".join([*lines, f"processor = {processor}", f"features = model({inputs}).{out}"])


class ForTimm(Target):
    """config.json and model.safetensors for timm, and for transformers where timm is installed."""

    program = "timm"

    def __init__(self, subject: Subject):
        super().__init__(subject)
        self.timm = Timm(subject)

    def write(self, file: Path) -> None:
        """By timm's own code, since what is in its config differs from version to version."""
        from timm.models._hub import save_for_hf

        model = self.timm.call()
        model.load_state_dict(self.timm.tensors, strict=True)
        arguments = {k: v for k, v in self.timm.call.keywords.items() if k != "num_classes"}
        save_for_hf(
            model,
            str(file),
            model_config={"pretrained_cfg": for_timm(self.subject)},
            model_args=arguments,
            safe_serialization=True,
        )
        config = json.loads((file / CONFIG).read_text())
        config.get("model_args", {}).pop("num_classes", None)  # transformers gives it once more
        unknown = ("mean", "std") if self.subject.trunk.mean is None else ()
        for key in (*OF_TIMM, *unknown):
            config["pretrained_cfg"].pop(key, None)
        _write_json(file / CONFIG, config)

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor:
        return self._load(file)().eval()(x_NCHW)

    def usage(self, file: Path) -> str:
        return (
            f"import timm\nmodel = {self._load(file)}.eval()\n"
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
            "features = model(transform(image)[None])"
        )

    def _load(self, folder: Path) -> Call:
        return Call("timm.create_model", (f"local-dir:{folder}",), {"pretrained": True})


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
