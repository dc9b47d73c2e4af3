"""What distinguishes one family of diffusion models from another: parts, conditioning, pipelines.

Imports neither torch nor diffusers, so that cost estimates and the command line can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sarhpc.diffusion.config import BundleConfig, TextShape

if TYPE_CHECKING:
    from torch import Tensor, nn

Conditioning = tuple["Tensor", "dict[str, Tensor] | None"]
"""Text embedding (B, L, D) and further conditioning of the backbone, None if there is none."""

AUTOENCODER = "vae"
"""Folder of the autoencoder."""
SCHEDULER = "scheduler"
"""Folder of the noise schedule."""
_TOKENIZER_FILES = ("merges.txt", "vocab.json", "special_tokens_map.json", "tokenizer_config.json")


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family, with its tokenizer."""

    folder: str
    """Its folder in a diffusers folder, and the prefix of its parameters in a checkpoint."""
    tokenizer: str
    """Folder of its tokenizer."""
    model: str
    """Class of transformers."""
    embedding_key: str
    """Name of its row in a textual inversion of a model with several encoders."""
    original_prefix: str
    """Prefix of its weights in a single-file checkpoint of the original layout."""


@dataclass(frozen=True, eq=False)
class ModelFamily:
    """The facts of a family; everything else about a model is in the model's own folder."""

    key: str
    """Short name, that of the published model in `sarhpc fetch`."""
    name: str
    """As written in messages."""
    title: str
    """Full name of the published model."""
    name_part: str
    """What the name of a base model of this family contains, lower case; empty matches any."""
    backbone: str
    """Folder of the network that predicts the noise, and the prefix of its parameters."""
    backbone_class: str
    """Its class of diffusers."""
    encoders: tuple[TextEncoder, ...]
    """Text encoders, in order."""
    latent_channels: int
    size_ids: int
    """Numbers of the micro-conditioning on image sizes; 0 if the backbone takes none."""
    pipeline: str
    """Pipeline class of diffusers."""
    control_pipeline: str
    """Its counterpart with a ControlNet."""
    image_pipeline: str
    """Its counterpart that begins with an image."""
    control_image_pipeline: str
    """That with a ControlNet."""
    loading_options: Mapping[str, Any]
    """Arguments of `from_pretrained` that disable safety checker and watermark."""
    building_options: Mapping[str, Any]
    """Further arguments of the constructor."""
    published: BundleConfig
    """Shapes of the published model, those in configs/bundles."""
    condition: Callable[[Sequence[Any], Sequence[Tensor]], Conditioning]
    """(text encoders, token ids of each and then size ids) -> conditioning of the backbone."""
    unused_modules: Callable[[Sequence[Any]], Iterator[nn.Module]]
    """Text encoders -> their modules that no prediction depends on."""

    @property
    def components(self) -> tuple[str, ...]:
        """Folders of the models that can be fine-tuned."""
        return (self.backbone, *(encoder.folder for encoder in self.encoders))

    @property
    def original_prefixes(self) -> tuple[str, ...]:
        """Prefixes of all text encoders' weights in a single-file checkpoint."""
        return tuple(encoder.original_prefix for encoder in self.encoders)

    @property
    def pipelines(self) -> tuple[str, ...]:
        """Classes that a folder of this family may be of; the ones with a ControlNet last."""
        return (self.pipeline, self.image_pipeline, *self.control_pipelines)

    @property
    def control_pipelines(self) -> tuple[str, str]:
        """The classes with a ControlNet."""
        return (self.control_pipeline, self.control_image_pipeline)

    def pipeline_class(self, *, control: bool, begins_with_image: bool) -> str:
        """The class that samples with or without a ControlNet, from noise or from an image."""
        if begins_with_image:
            return self.control_image_pipeline if control else self.image_pipeline
        return self.control_pipeline if control else self.pipeline

    def folder_files(self) -> tuple[str, ...]:
        """Files of a diffusers folder of this family, as published."""
        files = ["model_index.json", f"{SCHEDULER}/scheduler_config.json"]
        for part in (self.backbone, AUTOENCODER):
            files += [f"{part}/config.json", f"{part}/diffusion_pytorch_model.safetensors"]
        for encoder in self.encoders:
            files += [f"{encoder.folder}/config.json", f"{encoder.folder}/model.safetensors"]
        for encoder in self.encoders:
            files += [f"{encoder.tokenizer}/{name}" for name in _TOKENIZER_FILES]
        return tuple(files)


def text_shapes(shapes: BundleConfig) -> tuple[TextShape, ...]:
    """Shapes of the text encoders of a bundle, in order."""
    return (shapes.text,) if shapes.text_2 is None else (shapes.text, shapes.text_2)
