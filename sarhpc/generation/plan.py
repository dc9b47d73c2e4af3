"""The plan of a synthetic corpus: which prompts with which seeds, in which shard."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.documents import parse_json
from hpc.errors import ConfigError
from hpc.regular_files import decoded_text
from sarhpc.generation.adapters.chosen import check_adapters
from sarhpc.generation.choices import require_choice
from sarhpc.generation.config import (
    AREAS_LEAST_PX,
    GATE_LEAST_PX,
    GateConfig,
    GenerateConfig,
    HomogeneousAreasConfig,
)
from sarhpc.generation.controls.checks import check_controls
from sarhpc.generation.scenes.checks import check_scene, image_size
from sarhpc.generation.schedules import check_schedule
from sarhpc.generation.sources.checks import check_image_to_image
from sarhpc.generation.sweeps.checks import check_sweep
from sarhpc.generation.sweeps.settings import layout_inputs, layouts_per_shard

DTYPES = ("float32", "float16", "bfloat16")
_LARGEST_SHARD = 100_000


@dataclass(frozen=True)
class ImageRequest:
    """One image to generate: its index in the shard, its prompt, and the seed of its noise."""

    index: int
    prompt: str
    seed: int
    negative_prompt: str | None = None
    """Negative prompt; None takes the one of the configuration."""
    labels: Mapping[str, str | int | float | bool] = field(default_factory=dict, hash=False)
    """What its row of the prompt table says of it."""
    draw: int = 0
    """How many images of it were quarantined before, each of another seed."""


def image_seed(run_seed: int, prompt: str, repetition: int) -> int:
    """Seed of an image, 0 to 2^63 - 1: a hash of the run seed, the prompt and its repetition.

    It depends neither on the other prompts and their order nor on shard and batch sizes.
    """
    identity = json.dumps([run_seed, prompt, repetition]).encode()
    return int.from_bytes(hashlib.sha256(identity).digest()[:8], "big") >> 1


def redrawn(request: ImageRequest) -> ImageRequest:
    """The next draw of a request, under the same index: its seed follows from the one before."""
    draw = request.draw + 1
    identity = json.dumps([request.seed, "redraw", draw]).encode()
    seed = int.from_bytes(hashlib.sha256(identity).digest()[:8], "big") >> 1
    return dataclasses.replace(request, seed=seed, draw=draw)


def plan_generation(
    cfg: GenerateConfig, prompts: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Inputs of each shard: batch shape, threads, and the images as (prompt, seed).

    A shard's inputs are `{"batch", "threads", "prompts": [text], "images": [[prompt number,
    seed]]}`, each text written once per shard: a plan of a million images takes tens of MB. With
    `cfg.steer` or `cfg.image_to_image`, `first` is the number of the shard's first image in the
    corpus. With `cfg.sweep` the images are layouts, and `layout_images` is the number of images of
    each.

    Args:
        cfg: What to generate.
        prompts: Descriptions to use instead of those of `cfg`.

    Raises:
        ConfigError: no prompts, or an invalid setting.
    """
    check_config(cfg)
    requests = list(_requests(cfg, read_prompts(cfg) if prompts is None else prompts))
    if not requests:
        read = "" if cfg.prompts_file is None else f" ({cfg.prompts_file} holds none)"
        raise ConfigError(
            f"nothing to generate: set {cfg.SECTION}.prompts or {cfg.SECTION}.prompts_file{read}."
        )
    size = layouts_per_shard(cfg)
    starts = range(0, len(requests), size)
    shards = [_shard_inputs(cfg, requests[start : start + size]) for start in starts]
    if cfg.steer is None and cfg.image_to_image is None:
        return shards
    return [{**shard, "first": start} for shard, start in zip(shards, starts, strict=True)]


def full_prompt(cfg: GenerateConfig, description: str) -> str:
    """What the model is asked for: the description within the prompt template."""
    return within_template(cfg.prompt_template, description)


def within_template(template: str, description: str) -> str:
    """The prompt template with the description in it, which does not repeat how it begins.

    A text that came along with an image may begin with the words of the template.
    """
    opening, text = template.partition("{prompt}")[0], description.strip()
    if opening.strip() and text.lower().startswith(opening.lower()):
        text = text[len(opening) :].strip()
    return template.replace("{prompt}", text)


def shard_requests(inputs: Mapping[str, Any]) -> list[ImageRequest]:
    """The images of a planned shard, in order."""
    prompts = inputs["prompts"]
    return [
        ImageRequest(index, prompts[number], seed)
        for index, (number, seed) in enumerate(inputs["images"])
    ]


def read_prompts(cfg: GenerateConfig) -> list[str]:
    """The descriptions of `cfg.prompts`, then those of `cfg.prompts_file`; blank lines skipped.

    Raises:
        ConfigError: the file is missing, of another kind, or a line of it has no prompt.
    """
    prompts = [*cfg.prompts]
    if cfg.prompts_file is not None:
        prompts += _file_prompts(Path(cfg.prompts_file), cfg.SECTION)
    if any(not prompt.strip() for prompt in prompts):
        raise ConfigError(f"{cfg.SECTION}.prompts holds an empty prompt: remove it.")
    return prompts


def check_config(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless every setting is valid.

    Raises:
        ConfigError: one is not; the message names it.
    """
    at = cfg.SECTION
    check_schedule(cfg)
    check_adapters(cfg)
    require_choice(f"{at}.dtype", cfg.dtype, DTYPES)
    check_controls(cfg)
    if not 0 <= cfg.guidance_rescale <= 1:
        raise ConfigError(f"{at}.guidance_rescale is {cfg.guidance_rescale}: must be 0 to 1.")
    check_image_to_image(cfg)
    if cfg.table is not None and (cfg.prompts or cfg.prompts_file):
        raise ConfigError(
            f"{at}.table replaces {at}.prompts and {at}.prompts_file: leave them out, or set "
            f"{at}.table=null."
        )
    if "{prompt}" not in cfg.prompt_template:
        raise ConfigError(
            f"{at}.prompt_template {cfg.prompt_template!r} has no {{prompt}}: every image "
            "would have the same prompt."
        )
    check_scene(cfg)
    check_sweep(cfg)
    if cfg.gate is not None:
        _check_gate(cfg.gate, cfg, f"{at}.gate")
    if cfg.homogeneous_areas is not None:
        _check_areas(cfg.homogeneous_areas, cfg, f"{at}.homogeneous_areas")
    for name in ("steps", "batch", "threads", "shard_samples", "images_per_prompt", "images"):
        value = getattr(cfg, name)
        if value is not None and value < 1:
            raise ConfigError(f"{at}.{name} is {value}: must be >= 1.")
    if cfg.shard_samples > _LARGEST_SHARD:
        raise ConfigError(f"{at}.shard_samples: at most {_LARGEST_SHARD}, keys have 5 digits.")
    for name in ("height_px", "width_px"):
        value = getattr(cfg, name)
        if value is not None and (value < 8 or value % 8):
            raise ConfigError(f"{at}.{name} is {value}: must be a multiple of 8, or null.")


def _check_areas(areas: HomogeneousAreasConfig, cfg: GenerateConfig, at: str) -> None:
    if areas.side_px % 4:
        raise ConfigError(f"{at}.side_px is {areas.side_px}: must be a multiple of 4.")
    least = max(areas.side_px, AREAS_LEAST_PX)
    for name, value in zip(("rows", "columns"), image_size(cfg), strict=True):
        if value is not None and value < least:
            raise ConfigError(
                f"{cfg.SECTION} makes images of {value} {name}: areas of "
                f"{areas.side_px} px need images of at least {least} px."
            )


def _check_gate(gate: GateConfig, cfg: GenerateConfig, at: str) -> None:
    if gate.false_rejects >= 1:
        raise ConfigError(f"{at}.false_rejects is {gate.false_rejects:g}: give less than 1.")
    if cfg.shard_samples * (gate.redraws + 1) > _LARGEST_SHARD:
        raise ConfigError(
            f"{at}.redraws is {gate.redraws}: a shard of {cfg.shard_samples} images may quarantine "
            f"{cfg.shard_samples * (gate.redraws + 1)}, and keys tell {_LARGEST_SHARD} apart; lower"
            f" it, or {cfg.SECTION}.shard_samples."
        )
    sides = [side for side in image_size(cfg) if side is not None]
    if sides and min(sides) < GATE_LEAST_PX:
        raise ConfigError(
            f"{at} measures images of at least {GATE_LEAST_PX} px, and {cfg.SECTION} makes some of "
            f"{min(sides)} px: set {at}=null, or make them larger."
        )


def _requests(cfg: GenerateConfig, prompts: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(full prompt, seed) of every image, using the prompts in turn."""
    total = len(prompts) * cfg.images_per_prompt if cfg.images is None else cfg.images
    repetitions: Counter[str] = Counter()
    for image in range(total if prompts else 0):
        prompt = full_prompt(cfg, prompts[image % len(prompts)])
        yield prompt, image_seed(cfg.seed, prompt, repetitions[prompt])
        repetitions[prompt] += 1


def _shard_inputs(cfg: GenerateConfig, images: Sequence[tuple[str, int]]) -> dict[str, Any]:
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(p for p, _ in images))}
    return {
        "batch": cfg.batch,
        "threads": cfg.threads,
        **layout_inputs(cfg),
        "prompts": list(numbers),
        "images": [[numbers[prompt], seed] for prompt, seed in images],
    }


def _file_prompts(path: Path, section: str) -> list[str]:
    if path.suffix not in (".txt", ".jsonl"):
        raise ConfigError(f"{section}.prompts_file {path}: a .txt or .jsonl file is expected.")
    try:
        lines = decoded_text(path.read_bytes()).replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {section}.prompts_file {path}: {error}.") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if path.suffix == ".txt":
        return [line.strip() for _, line in numbered]
    return [_json_prompt(line, f"{path} line {number}") for number, line in numbered]


def _json_prompt(line: str, where: str) -> str:
    try:
        prompt = parse_json(line)["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{where} is no object like {{"prompt": "a river"}}.') from error
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"{where} has the prompt {prompt!r}: text is expected.")
    return prompt
