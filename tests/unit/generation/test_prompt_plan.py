"""Prompts and templates: every place, every line, every limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig, SteerConfig
from sarhpc.generation.plan import (
    check_config,
    image_seed,
    plan_generation,
    read_prompts,
    shard_requests,
)


def config(**changes: object) -> GenerateConfig:
    return GenerateConfig(**{"prompts": ["a river", "a town"], **changes})  # type: ignore[arg-type]


def asked(cfg: GenerateConfig) -> list[str]:
    return [request.prompt for inputs in plan_generation(cfg) for request in shard_requests(inputs)]


def test_the_prompt_stands_at_every_place_of_the_template() -> None:
    template = "{prompt}, seen by SAR: {prompt}; {prompt}"
    cfg = config(prompts=["  a river "], prompt_template=template)
    assert asked(cfg) == ["a river, seen by SAR: a river; a river"]


@pytest.mark.parametrize("blank", ["", " ", "\\t", "\\n"])
def test_a_line_of_prompts_without_a_word_is_named(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "ok"}}\n\n{{"prompt": "{blank}"}}\n')
    with pytest.raises(ConfigError, match=r"p\.jsonl line 3 has the prompt .*: text is expected"):
        read_prompts(config(prompts_file=str(path)))


def test_blank_lines_of_a_file_are_passed_over_and_count_as_lines(tmp_path: Path) -> None:
    text = tmp_path / "p.txt"
    text.write_text("\n a river \n\n\na town\n")
    assert read_prompts(GenerateConfig(prompts_file=str(text))) == ["a river", "a town"]
    lines = tmp_path / "p.jsonl"
    lines.write_text('\n{"prompt": " a river "}\n\n{"prompt": 3}\n')
    with pytest.raises(ConfigError, match="line 4"):
        read_prompts(GenerateConfig(prompts_file=str(lines)))


def test_prompts_of_the_file_come_after_those_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a port\n")
    assert read_prompts(config(prompts_file=str(path))) == ["a river", "a town", "a port"]


def test_a_repeated_prompt_counts_its_repetitions_over_all_shards() -> None:
    cfg = config(images=5, shard_samples=2, seed=8)
    plan = plan_generation(cfg)
    found = [request for inputs in plan for request in shard_requests(inputs)]
    river, town = "A SAR image of a river", "A SAR image of a town"
    expected = [(river, 0), (town, 0), (river, 1), (town, 1), (river, 2)]
    assert [(one.prompt, one.seed) for one in found] == [
        (prompt, image_seed(8, prompt, repetition)) for prompt, repetition in expected
    ]
    assert [one.index for one in found] == [0, 1, 0, 1, 0]
    assert [inputs["prompts"] for inputs in plan] == [[river, town], [river, town], [river]]


def test_equal_prompts_after_the_template_count_as_one() -> None:
    cfg = config(prompts=["a river", " a river"], images_per_prompt=2)
    found = shard_requests(plan_generation(cfg)[0])
    assert len({(one.prompt, one.seed) for one in found}) == 4
    assert plan_generation(cfg)[0]["prompts"] == ["A SAR image of a river"]


def test_a_seed_is_63_bits_of_the_hash_of_the_image() -> None:
    seeds = [image_seed(0, "x", n) for n in range(300)]
    assert min(seeds) >= 0
    assert 1 << 62 < max(seeds) < 1 << 63
    assert len({*seeds, image_seed(1, "x", 0), image_seed(0, "y", 0)}) == 302


def test_only_a_steered_plan_numbers_its_images() -> None:
    plain = plan_generation(config(images=5, shard_samples=2))
    assert all("first" not in inputs for inputs in plain)
    steered = plan_generation(config(images=5, shard_samples=2, steer=SteerConfig()))
    assert [inputs["first"] for inputs in steered] == [0, 2, 4]


def test_a_plan_is_steered_by_a_known_layer() -> None:
    with pytest.raises(ConfigError, match=r"generate\.steer\.layer is 'relief': one of "):
        check_config(config(steer=SteerConfig(layer="relief")))


COUNTS = ("steps", "batch", "threads", "shard_samples", "images_per_prompt", "images")


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_one_or_more(name: str) -> None:
    check_config(config(**{name: 1}))
    with pytest.raises(ConfigError, match=rf"generate\.{name} is 0: must be >= 1"):
        check_config(config(**{name: 0}))


@pytest.mark.parametrize("name", ["height_px", "width_px"])
def test_sides_are_multiples_of_eight(name: str) -> None:
    check_config(config(**{name: 8}))
    for value in (0, 4, 12, -8):
        with pytest.raises(ConfigError, match=f"{name} is {value}: must be a multiple of 8"):
            check_config(config(**{name: value}))


def test_the_largest_shard_and_the_ends_of_a_share_are_allowed() -> None:
    check_config(config(shard_samples=100_000))
    with pytest.raises(ConfigError, match="at most 100000"):
        check_config(config(shard_samples=100_001))
    for share in (0.0, 1.0):
        check_config(config(guidance_rescale=share))
    for share in (-0.01, 1.01):
        with pytest.raises(ConfigError, match="must be 0 to 1"):
            check_config(config(guidance_rescale=share))


def test_no_prompt_at_all_makes_no_plan() -> None:
    with pytest.raises(ConfigError, match="nothing to generate"):
        plan_generation(GenerateConfig(images=3))


def test_a_plan_reads_back_from_json() -> None:
    inputs = json.loads(json.dumps(plan_generation(config(images=3))))[0]
    assert [one.prompt[-5:] for one in shard_requests(inputs)] == ["river", " town", "river"]
