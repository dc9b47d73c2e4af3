"""A gate that looks for copies of training tiles: planned, applied, reported, refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gated_runs import image_run, make_corpus, real_tiles
from ground_tiles import tiles_and_copies
from image_sets_on_disk import codes_of, shard_of
from line_runs import make_tiny_model

from hpc.errors import ConfigError, HpcError, VerificationError
from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.generation.copies import MEMORISED, TRAINING_MAP, CopyGate, PlannedCopies
from sarhpc.generation.finishing import SampledImage
from sarhpc.generation.gate import PlannedGate, ShardGate
from sarhpc.generation.plan import ImageRequest
from sarhpc.measures.gate_limits import GateLimits
from sarhpc.measures.ground_maps import ground_map, most_shift_cells
from sarhpc.measures.map_search import MapIndex
from sarhpc.measures.memorisation import copy_limit
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.generate import make_corpus_shard
from sarhpc.stages.inputs.gate_limits import planned_gate
from sarhpc.stages.inputs.training_maps import copy_gate
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

IMAGES = 24
COPIED = (3, 10, 17)
"""Indices of the images that the model was trained on, as it were."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return real_tiles(tmp_path_factory.mktemp("tiles") / "run", model)


def gated(root: Path, model: Path, tiles: Path, memorised: str) -> RunDir:
    gate = f"{{false_rejects: 0.08, redraws: 4, shards: {tiles}, memorised: {memorised}}}"
    return image_run(
        root, model, "generate.prompts=[a lake, a field]", f"generate.gate={gate}",
        f"generate.images={IMAGES}", f"generate.shard_samples={IMAGES // 2}",
    )  # fmt: skip


def samples_of(folder: Path) -> dict[str, Sample]:
    return {s.key: s for path in sorted(folder.glob("*.tar")) for s in read_shard(path)}


def training(root: Path, tiles: Path, copied: Sequence[Sample] = ()) -> Path:
    """Shards of tiles of scenes of four, and of these images."""
    of = [decode_gray8(s.members["sar.png"]) for s in (*samples_of(tiles).values(), *copied)]
    shard_of(root / "000000.tar", of, lambda n: {"scene_id": f"s{n // 4}", "split": "train"})
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, model: Path, tiles: Path) -> RunDir:
    """A corpus whose gate does not look for copies."""
    run = gated(tmp_path_factory.mktemp("plain") / "run", model, tiles, "null")
    make_corpus(run)
    return run


def test_copies_of_training_tiles_are_quarantined_and_drawn_again(
    tmp_path: Path, model: Path, tiles: Path, plain: RunDir
) -> None:
    before = samples_of(plain.root / "data/synthetic")
    copied = [key for n, key in enumerate(sorted(before)) if n in COPIED]
    shards = training(tmp_path / "train", tiles, [before[key] for key in copied])
    run = gated(tmp_path / "run", model, tiles, f"{{shards: {shards}}}")
    make_corpus(run, (1, 0))
    after = samples_of(run.root / "data/synthetic")
    found = [
        sample.meta["gate"]
        for sample in samples_of(run.root / "data/quarantine").values()
        if sample.meta["gate"]["reasons"][0]["name"] == MEMORISED
    ]
    assert {gate["key"] for gate in found} >= {*copied}
    assert len(found) <= len(copied) + 1
    assert "training tile 00000000" in found[0]["reasons"][0]["text"]
    for key in copied:
        assert after[key].meta["seed"] != before[key].meta["seed"]
        assert after[key].meta["gate"]["memorised"]["evidence"] < found[0]["memorised"]["evidence"]
    others = [key for key in before if key in after and key not in {g["key"] for g in found}]
    assert all(after[key].members["sar.png"] == before[key].members["sar.png"] for key in others)
    [record, _] = run.ledger("generate").records().values()
    assert int(record.rejected[MEMORISED]) >= 1


def test_without_the_setting_the_plan_says_nothing_of_copies(plain: RunDir) -> None:
    assert not list(plain.stage("generate").glob("training-maps*"))
    sample = next(iter(samples_of(plain.root / "data/synthetic").values()))
    assert MEMORISED not in sample.meta["gate"]


def test_maps_that_were_changed_or_lost_since_the_plan_are_refused(
    tmp_path: Path, model: Path, tiles: Path
) -> None:
    shards = training(tmp_path / "train", tiles)
    run = gated(tmp_path / "run", model, tiles, f"{{shards: {shards}}}")
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    [path] = run.stage("generate").glob("training-maps-*.npy")
    held = bytearray(path.read_bytes())
    held[-1] ^= 1
    path.write_bytes(held)
    with pytest.raises(VerificationError, match="other maps than were planned"):
        make_corpus_shard(run, plan.shards[0])
    path.unlink()
    with pytest.raises(VerificationError, match="cannot be read"):
        copy_gate(run, planned_gate(run, plan.shards[0].inputs["gate_sha256"]).copies)  # type: ignore[arg-type]


def refused(run: RunDir) -> str:
    with pytest.raises(HpcError) as raised:
        ensure_plan(run, stage_named(load_run_config(run), "generate"))
    assert isinstance(raised.value, ConfigError)
    assert not run.plan_file("generate").exists()
    return str(raised.value)


def test_training_tiles_that_copies_cannot_be_told_of_are_refused_at_planning(
    tmp_path: Path, model: Path, tiles: Path
) -> None:
    (tmp_path / "empty").mkdir()
    words = refused(gated(tmp_path / "a", model, tiles, f"{{shards: {tmp_path / 'empty'}}}"))
    assert "no shards below generate.gate.memorised.shards" in words
    assert "set generate.gate.memorised=null" in words
    one = shard_of(tmp_path / "one/000000.tar", [np.full((64, 64), 9, np.uint8)] * 50, {})
    words = refused(gated(tmp_path / "b", model, tiles, f"{{shards: {one.parent}}}"))
    assert "of 1 flight lines or scenes" in words
    small = shard_of(tmp_path / "small/000000.tar", [np.full((48, 48), 9, np.uint8)] * 50, {})
    words = refused(gated(tmp_path / "c", model, tiles, f"{{shards: {small.parent}}}"))
    assert "larger than training tiles of 48 x 48 px" in words
    run = gated(tmp_path / "d", model, tiles, "{}")
    words = refused(run)
    assert "larger than training tiles of 32 x 32 px" in words or "no tiles of train" in words


def test_a_copy_with_other_speckle_flipped_and_moved_is_no_image_for_the_corpus() -> None:
    """The acceptance: recall of 0.95 among images that the other tests of the gate accept."""
    made, copies = tiles_and_copies(80, seed=5)
    others, _ = tiles_and_copies(40, seed=6)
    rows = [
        (f"{number:011d}".encode(), ground_map(codes_of(0.2 * A))) for number, A in enumerate(made)
    ]
    maps = np.array(rows, TRAINING_MAP)
    groups = np.arange(80)
    most = most_shift_cells((128, 128))
    null = MapIndex(maps["map"], most, groups).nearest(maps["map"], groups=groups)
    planned = PlannedCopies("0" * 64, copy_limit(null, 80), 0.001, (128, 128), most)
    assert PlannedCopies.from_json(planned.to_json()) == planned
    wide = GateLimits({}, {}, 0, 0.5, 10, 10, 128)
    gate = PlannedGate(wide, None, ("val",), planned)
    assert PlannedGate.from_json(gate.to_json()) == gate
    judge = ShardGate(gate, 2, lambda image: None, copies=CopyGate(planned, maps)).judge

    def reasons(images: Sequence[np.ndarray]) -> list[str | None]:
        return [
            judge(SampledImage(ImageRequest(n, "a", n), _channels(A), {})).reason
            for n, A in enumerate(images)
        ]

    assert np.mean([reason == MEMORISED for reason in reasons(copies)]) >= 0.95
    assert sum(reason is not None for reason in reasons(others)) <= 1


def _channels(A: np.ndarray) -> np.ndarray:
    codes = codes_of(0.2 * A) / np.float32(255)
    return np.repeat(codes[:, :, None], 3, axis=2).astype(np.float32)
