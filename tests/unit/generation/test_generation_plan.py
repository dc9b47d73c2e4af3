from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hpc.config import load
from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.plan import image_seed, plan_generation, read_prompts, shard_requests

SEED = 2_264_309_273_587_004_515
PROMPTS = ["a river", "a forest", "a town"]


def config(**changes: object) -> GenerateConfig:
    return GenerateConfig(**{"prompts": PROMPTS, **changes})


def seeds_by_image(plan: list[dict]) -> set[tuple[str, int]]:
    return {(request.prompt, request.seed) for inputs in plan for request in shard_requests(inputs)}


def test_the_plan_holds_every_image_in_shards_of_the_configured_size():
    plan = plan_generation(config(images_per_prompt=4, shard_samples=5))
    assert [len(inputs["images"]) for inputs in plan] == [5, 5, 2]
    requests = shard_requests(plan[0])
    assert [request.index for request in requests] == [0, 1, 2, 3, 4]
    assert [request.prompt for request in requests][:4] == [
        "A SAR image of a river",
        "A SAR image of a forest",
        "A SAR image of a town",
        "A SAR image of a river",
    ]
    assert len(seeds_by_image(plan)) == 12


def test_a_total_uses_the_prompts_in_turn():
    requests = shard_requests(plan_generation(config(images=4))[0])
    assert [r.prompt.removeprefix("A SAR image of ") for r in requests] == [*PROMPTS, PROMPTS[0]]


def test_seeds_depend_on_neither_shard_size_nor_batch_nor_order_nor_other_prompts():
    plain = seeds_by_image(plan_generation(config(images_per_prompt=3)))
    for other in (
        config(images_per_prompt=3, shard_samples=2, batch=7),
        config(images_per_prompt=3, prompts=PROMPTS[::-1]),
    ):
        assert seeds_by_image(plan_generation(other)) == plain
    assert plain < seeds_by_image(plan_generation(config(images_per_prompt=5)))
    assert plain < seeds_by_image(
        plan_generation(config(images_per_prompt=3, prompts=["a port", *PROMPTS]))
    )


def test_a_prompt_named_twice_gives_different_images():
    plan = plan_generation(config(prompts=["a river", "a river"], images_per_prompt=2))
    assert len(seeds_by_image(plan)) == 4


def test_seeds_are_the_same_on_every_machine_and_fit_a_signed_64_bit_column():
    assert image_seed(0, "A SAR image of a river", 0) == SEED
    many = [image_seed(0, "x", repetition) for repetition in range(1000)]
    assert len(set(many)) == 1000
    assert all(0 <= seed < 2**63 for seed in many)
    assert image_seed(1, "x", 0) != image_seed(0, "x", 0) != image_seed(0, "y", 0)


def test_batch_shape_and_threads_are_part_of_the_plan():
    plan = plan_generation(config(batch=6, threads=2, shard_samples=2))
    assert [(inputs["batch"], inputs["threads"]) for inputs in plan] == [(6, 2)] * 2


def test_the_plan_is_plain_json_and_small():
    plan = plan_generation(config(images=20_000, shard_samples=5000))
    text = json.dumps(plan)
    assert json.loads(text) == plan
    assert len(text) / 20_000 < 40


def test_the_template_is_plain_text():
    plan = plan_generation(config(prompts=["a {strange} river"], prompt_template="<sar> {prompt}!"))
    assert shard_requests(plan[0])[0].prompt == "<sar> a {strange} river!"


def test_prompts_come_from_text_and_json_lines(tmp_path):
    text, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text("a river\n\n  a forêt \n", encoding="utf-8")
    lines.write_text('{"prompt": "a town", "id": 3}\n', encoding="utf-8")
    assert read_prompts(GenerateConfig(prompts_file=str(text))) == ["a river", "a forêt"]
    assert read_prompts(config(prompts=["x"], prompts_file=str(lines))) == ["x", "a town"]


def test_prompts_can_be_handed_in():
    plan = plan_generation(GenerateConfig(), ["a port"])
    assert shard_requests(plan[0])[0].prompt == "A SAR image of a port"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": []}, "nothing to generate"),
        ({"prompts": ["a", " "]}, "empty prompt"),
        ({"prompt_template": "A SAR image"}, "has no {prompt}"),
        ({"scheduler": "pmdm"}, "Did you mean pndm"),
        ({"dtype": "fp16"}, "float32, float16, bfloat16"),
        ({"batch": 0}, "generate.batch is 0"),
        ({"images": 0}, "generate.images is 0"),
        ({"shard_samples": 100_001}, "at most 100000"),
        ({"height_px": 500}, "multiple of 8"),
        ({"prompts_file": "/nowhere/p.txt"}, "cannot read"),
        ({"prompts_file": "prompts.csv"}, "jsonl"),
    ],
)
def test_what_cannot_be_generated_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        plan_generation(config(**changes))


@pytest.mark.parametrize("line", ["a river", '{"text": "a"}', '["a"]', '{"prompt": 3}'])
def test_a_bad_line_of_prompts_is_named(tmp_path, line):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "ok"}\n' + line + "\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_prompts(GenerateConfig(prompts_file=str(path)))


def test_the_configuration_loads_from_the_command_line():
    cfg = load(GenerateConfig, None, ["prompts=[a river,a town]", "height_px=512", "batch=8"])
    assert cfg.prompts == ["a river", "a town"]
    assert (cfg.height_px, cfg.width_px, cfg.batch) == (512, None, 8)


def test_configuration_and_plan_load_no_heavy_package():
    code = (
        "import sys, sarhpc.generation.plan;"
        "print(sorted({'torch', 'diffusers', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
