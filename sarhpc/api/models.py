"""Models: captions of images, and images of prompts."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc.config import fingerprint, loads
from hpc.errors import ConfigError, DataError
from hpc.store.tree import digest_tree
from sarhpc.captioning.config import CaptionConfig
from sarhpc.cli.verbs import existing_path
from sarhpc.extras import require_extra
from sarhpc.generation.config import GenerateConfig
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.sample import Sample
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.inputs.sampling import require_sampled
from sarhpc.stages.number_ranges import require_in_range
from sarhpc.stages.spec import pass_all

if TYPE_CHECKING:
    from sarhpc.generation.sources.source_images import SourceImages
    from sarhpc.shards.contract import PixelContract


@dataclass(frozen=True)
class Model:
    """A generating model, loaded."""

    folder: Path
    config: GenerateConfig
    """How it samples: steps, guidance, scheduler and so on."""
    pipeline: Any
    """The pipeline of diffusers."""


@dataclass(frozen=True)
class Generated:
    """Generated images, each with its prompt and its seed."""

    samples: tuple[Sample, ...]
    corpus: Path | None = None
    """The folder they were written to, if any."""

    @property
    def images(self) -> NDArray[np.uint8]:
        """Gray images (N, H, W)."""
        return np.array([decode_gray8(sample.members["sar.png"]) for sample in self.samples])

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image."""
        return [sample.meta["prompt"] for sample in self.samples]

    @property
    def seeds(self) -> list[int]:
        """The seed of each image."""
        return [sample.meta["seed"] for sample in self.samples]


def load_model(name: str | Path, **settings: Any) -> Model:
    """The model in a diffusers folder, ready to sample; nothing is downloaded.

    Args:
        name: `RUN/export/model`, any other diffusers folder, `embedded:sar` or `fetched:sd15`.
        settings: of `generate`: `steps`, `guidance`, `scheduler`, `dtype`, `batch`, ...

    Raises:
        ConfigError: a setting is wrong, or there is no such model.
        DataError: the folder holds no model that can be loaded.
    """
    require_extra("generate", "load_model")
    from sarhpc.generation.plan import check_config

    _require_known(settings, GenerateConfig)
    config = loads(GenerateConfig, json.dumps(settings, default=_as_plain), source="the settings")
    pass_all(lambda: require_in_range("generate", config), lambda: check_config(config))
    _refuse_settings_of_runs(config)
    folder = existing_path(model_folder(str(name)), "a diffusers folder, or embedded:NAME")
    require_sampled(folder, config)
    # Importing it takes seconds, which a wrong setting need not wait for.
    from sarhpc.generation.model import load_pipeline

    return Model(folder, config, load_pipeline(folder, config))


def _refuse_settings_of_runs(config: GenerateConfig) -> None:
    """Raise ConfigError for what `generate` here would ignore."""
    for name in ("gate", "table"):
        if getattr(config, name) is not None:
            raise ConfigError(
                f"generate.{name} works with the stages of a run (`sarhpc run`), not from Python: "
                "set it in the configuration of a run, or leave it out"
            )


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _require_known(settings: Mapping[str, Any], config: type[Any]) -> None:
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(settings.keys() - known):
        raise ConfigError(f"no settings {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def generate(
    model: Model | str | Path,
    prompts: str | Sequence[str] = (),
    images: int | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
) -> Generated:
    """Images of prompts: the bits that the stage `generate` makes of the same settings.

    All are held in memory, and no gate judges them: a large corpus is made by a run.

    Args:
        model: from `load_model`, or its name.
        prompts: descriptions such as "a lake", which the setting `prompt_template` completes. Where
            images are begun with (`image_to_image`, which names their folder), they may be left
            out: the texts beside these are taken.
        images: total number, using the prompts in turn; None makes one of each, or of each image
            that is begun with.
        seed: of the whole; the seed of an image follows from it, the prompt and its repetition.
        out: new folder, which becomes a corpus: shards, index, card.

    Raises:
        ConfigError: no prompts, other things than texts and whole numbers, or `out` is not empty.
        DataError: every image has pixels that are not finite, or images to begin with are refused.
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    described = _texts(prompts)
    images = None if images is None else _whole("images", images)
    seed = _whole("seed", seed)
    cfg = dataclasses.replace(loaded.config, prompts=described, images=images, seed=seed)
    corpus = None if out is None else Path(out)
    if corpus is not None and corpus.exists() and any(corpus.iterdir()):
        raise ConfigError(f"{corpus} is not empty; name a new folder")
    samples = tuple(_generated(loaded, cfg, corpus))
    if not samples:
        raise DataError("the model made no image with finite pixels")
    return Generated(samples, corpus)


def _texts(prompts: object) -> list[str]:
    described = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(described, Iterable) or not all(isinstance(p, str) for p in described):
        raise ConfigError(f"prompts={prompts!r:.80}: give a text, or a list of texts")
    return list(described)


def _whole(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(f"{name}={value!r:.80}: give a whole number") from error


def _generated(model: Model, cfg: GenerateConfig, corpus: Path | None) -> Iterator[Sample]:
    """The samples of each planned shard, and with `corpus` these shards, packaged."""
    from sarhpc.corpus.facts import CorpusFacts, ShardFile
    from sarhpc.corpus.packaging import package_corpus
    from sarhpc.generation.adapters.chosen import planned_adapters
    from sarhpc.generation.image_shard import Provenance, generate_shard
    from sarhpc.generation.plan import plan_generation
    from sarhpc.shards.writer import write_shard
    from sarhpc.stages.inputs.contracts import contract_for
    from sarhpc.stages.inputs.controls import layers_of, named_controlnets

    sha, decided = digest_tree(model.folder).sha256, fingerprint(cfg)
    contract = contract_for(model.folder, cfg)
    facts = {
        "model_sha": sha,
        "contract": None if contract is None else contract.to_json(),
        **planned_adapters(model.folder, cfg),
        **({} if cfg.steer is None else named_controlnets(cfg.steer)),
    }
    layers = None if cfg.steer is None else layers_of(cfg.steer, _size(model, cfg), _no_tiles)
    sources = _sources(model, cfg, contract)
    described = None if sources is None else sources.descriptions(cfg.prompts)
    written: list[ShardFile] = []
    made_by = Provenance(sha, decided)
    for number, planned in enumerate(plan_generation(cfg, described)):
        inputs = {**planned, **facts}
        shard = generate_shard(
            number, inputs, cfg, model.pipeline, made_by, layers=layers, sources=sources
        )
        samples = list(shard.samples)
        if corpus is not None and samples:
            path = corpus / f"{number:06d}.tar"
            summary = write_shard(path, samples)
            written.append(ShardFile(path, summary.bytes, summary.sha256))
        yield from samples
    if corpus is not None and written:
        name = f"Synthetic SAR corpus of model {sha[:12]}"
        package_corpus(corpus, written, CorpusFacts(name, sha, decided, contract=contract))


def _sources(
    model: Model, cfg: GenerateConfig, contract: PixelContract | None
) -> SourceImages | None:
    """The images to begin with, none of which is refused later; None for text to image.

    Raises:
        ConfigError: no folder of them is named.
        DataError: some are of other pixels than the model's.
    """
    from sarhpc.generation.sources.checks import require_law
    from sarhpc.generation.sources.found import images_below
    from sarhpc.generation.sources.source_images import SourceImages

    if cfg.image_to_image is None:
        return None
    if cfg.image_to_image.images is None:
        raise ConfigError("image_to_image.images: name the folder of the images to begin with")
    if cfg.image_to_image.keep_mean_px is not None:
        require_law(cfg, contract)
    sources = SourceImages(images_below(Path(cfg.image_to_image.images)), contract)
    sources.survey(_size(model, cfg))
    return sources


def _size(model: Model, cfg: GenerateConfig) -> tuple[int, int] | None:
    from sarhpc.stages.inputs.image_size import image_size

    return image_size(cfg, model.folder)


def _no_tiles() -> list[Path]:
    raise ConfigError(
        "steer: without a run there are no held-out tiles; name the folder of the shards whose "
        "layers steer (shards), or drawings (sketch)"
    )


def caption(
    images: Sequence[NDArray[np.uint8]], model: str | Path = "embedded:blip", **settings: Any
) -> list[str]:
    """One caption for each image, as the stage `caption` drafts them.

    Args:
        images: (H, W, 3) or gray (H, W), uint8.
        model: a folder of BLIP or GIT, `embedded:blip` or `fetched:blip`.
        settings: of `caption`: `captioner`, `beams`, `max_tokens`, ...

    Raises:
        ConfigError: a setting is wrong, or the captioner needs more than an image.
        DataError: the model cannot be loaded.
    """
    require_extra("caption", "caption")
    from sarhpc.captioning.captioners.captioner import OpticalDrafter
    from sarhpc.captioning.captioners.registry import open_captioner

    _require_known(settings, CaptionConfig)
    cfg = CaptionConfig(model=model_folder(str(model)), **settings)
    require_in_range("caption", cfg)
    opened = open_captioner(cfg)
    captioner = opened.captioner if isinstance(opened, OpticalDrafter) else opened
    if not hasattr(captioner, "caption"):
        raise ConfigError(f"captioner {cfg.captioner!r} reads samples, not images")
    colour = [np.stack([one] * 3, axis=-1) if one.ndim == 2 else one for one in images]
    captions: list[str] = captioner.caption(colour)
    return captions
