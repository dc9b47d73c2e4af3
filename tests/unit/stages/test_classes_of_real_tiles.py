"""Real tiles under prompts of their own and of other classes: what the gate on classes finds."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from class_gates import CLASSES, PROMPTS, by_clip, gated
from line_runs import make_tiny_model
from numpy.typing import NDArray
from procedural_tiles import procedural_samples, procedural_shard

from hpc.store.rundir import RunDir
from sarhpc.evaluation.caption_content import class_of
from sarhpc.evaluation.text_config import LAND_COVER
from sarhpc.generation.finishing import SampledImage, Verdict
from sarhpc.generation.gate import PlannedGate, ShardGate
from sarhpc.generation.other_classes import ClassGate
from sarhpc.generation.plan import ImageRequest
from sarhpc.measures.gate_limits import GateLimits
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.writer import write_shard
from sarhpc.stages.inputs.class_gate import asked_class, class_gate
from sarhpc.stages.inputs.other_classes import plan_classes
from sarhpc.stages.run_config import load_run_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a shard of radar tiles whose captions are true."""
    root = tmp_path_factory.mktemp("captioned")
    procedural_shard(root / "000000.tar", 987, scenes=6, stride_px=64)
    return root


def channels(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.repeat((codes / np.float32(255))[:, :, None], 3, axis=2)


Refuses = Callable[[NDArray[np.uint8], str], bool]
"""Whether a picture under a prompt is refused for its class."""


def class_gate_of(run: RunDir, rate: float) -> tuple[PlannedGate, ClassGate]:
    """A gate whose only test is that of the class, by limits from the tiles of the run."""
    config = load_run_config(run)
    assert config.generate is not None
    assert config.generate.gate is not None
    assert config.generate.gate.other_class is not None
    cfg = dataclasses.replace(config.generate.gate.other_class, false_rejects=rate)
    classes = plan_classes(run, config, cfg, None, [], [ImageRequest(0, "a lake", 0)])
    gate = PlannedGate(GateLimits({}, {}, 0, 0.5, 10, 10, 64), None, ("val",), None, classes)
    assert PlannedGate.from_json(json.loads(encode_json(gate.to_json()))) == gate
    return gate, class_gate(run, config.generate.gate, classes, None)


def recall_and_false_rejects(
    refuses: Refuses, samples: Sequence[Sample]
) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Refused share of real tiles by (class asked, class shown), and by class under their own."""
    known = [(s, class_of(s.caption or "", LAND_COVER)) for s in samples]
    shown = {
        name: [decode_gray8(s.members["sar.png"]) for s, c in known if c == name]
        for name in CLASSES
    }
    share = {
        (asked, name): float(np.mean([refuses(codes, prompt) for codes in pictures]))
        for name, pictures in shown.items()
        for asked, prompt in PROMPTS.items()
        if pictures
    }
    wrong = {pair: value for pair, value in share.items() if pair[0] != pair[1]}
    return wrong, {name: share[name, name] for name in CLASSES if (name, name) in share}


@pytest.mark.slow
def test_real_tiles_under_the_prompt_of_another_class_are_found(
    tmp_path: Path, model: Path, captioned: Path
) -> None:
    size = ("tile.tile_px=128", "generate.height_px=128", "generate.width_px=128")
    run = gated(tmp_path / "run", model, captioned, by_clip(captioned), *size)
    planned, classes = class_gate_of(run, 0.05)
    gate = ShardGate(planned, 1, lambda image: None, classes=classes)

    def verdict(codes: NDArray[np.uint8], prompt: str) -> Verdict:
        return gate.judge(SampledImage(ImageRequest(0, prompt, 0), channels(codes), {}))

    samples = list(procedural_samples(654, scenes=3, stride_px=128))
    wrong, own = recall_and_false_rejects(
        lambda codes, prompt: verdict(codes, prompt).reason == "other_class", samples
    )
    assert np.mean([*wrong.values()]) >= 0.6
    assert np.mean([*own.values()]) <= 0.2, "of 27 tiles"
    lake = decode_gray8(samples[0].members["sar.png"])
    for prompt in ("a harbour", "a lake beside a town"):
        assert verdict(lake, prompt).reason is None
        assert "other_class" not in verdict(lake, prompt).facts["gate"]


def _refuses(classes: ClassGate, codes: NDArray[np.uint8], prompt: str) -> bool:
    return classes.find(codes, ImageRequest(0, prompt, 0))[1] is not None


@pytest.mark.long
def test_recall_at_one_and_five_per_cent_of_false_rejects(tmp_path: Path, model: Path) -> None:
    """The figures of docs/guide/generation.md: 2,000 tiles of 80 scenes, each half by the other."""
    halves = {seed: list(procedural_samples(seed, 40, stride_px=64)) for seed in (987, 654)}
    size = ("tile.tile_px=128", "generate.height_px=128", "generate.width_px=128")
    for rate, least in ((0.01, 0.4), (0.05, 0.75)):
        found = []
        for (seed, samples), others in zip(
            halves.items(), list(halves.values())[::-1], strict=True
        ):
            root = tmp_path / f"{seed}"
            if not root.exists():
                write_shard(root / "000000.tar", samples)
            run = gated(tmp_path / f"{seed}-{rate}", model, root, by_clip(root), *size)
            _, classes = class_gate_of(run, rate)
            wrong, own = recall_and_false_rejects(functools.partial(_refuses, classes), others)
            found.append((np.mean([*wrong.values()]), np.mean([*own.values()])))
            print(rate, seed, {k: round(v, 2) for k, v in wrong.items()}, own, found[-1])
        recall, rejected = np.mean(found, axis=0)
        print(f"at {rate:.0%}: recall {recall:.2f}, {rejected:.1%} of real tiles refused")
        assert recall >= least
        assert rejected <= 1.5 * rate + 0.005


@pytest.mark.parametrize(
    ("labels", "prompt", "asked"),
    [
        ({}, "A SAR image of a lake", "water"),
        ({}, "A SAR image of a harbour", None),
        ({}, "a lake beside a town", None),
        ({"class": "river"}, "what a river looks like", "water"),
        ({"class": "forest"}, "a road crosses a forest", "forest"),
        ({"class": "town"}, "houses beside a river", None),
        ({"class": "airport"}, "an airport in a field", "airport"),
        ({"class": 3}, "a lake", "water"),
    ],
)
def test_the_label_of_an_image_says_its_class_else_its_prompt(
    labels: dict[str, str | int], prompt: str, asked: str | None
) -> None:
    assert asked_class(ImageRequest(0, prompt, 0, labels=labels), LAND_COVER) == asked
