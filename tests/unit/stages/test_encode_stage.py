"""The stage `encode`: a shard of latents for each shard to train on, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import make_tiny_model, seal_captions, tiny_run

from hpc.errors import ConfigError
from hpc.publish import digest_file
from sarhpc.shards.reader import read_shard
from sarhpc.stages.encode import make_latent_shard, plan_encoding
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def test_what_is_trained_on_is_encoded_once(tmp_path: Path, model: Path) -> None:
    run = tiny_run(tmp_path / "run", model, ["encode.threads=1", "train.azimuth_flip=true"])
    seal_captions(run)
    plan = plan_encoding(run)
    [task] = plan.shards
    assert task.inputs["samples"].endswith("train/000000.tar")
    made = make_latent_shard(run, task)
    assert made.sha256 == digest_file(made.path).sha256
    samples = list(read_shard(made.path))
    assert [sample.key for sample in samples] == ["00000000000", "00000000001"]
    assert {"moments.npy", "moments_flipped.npy"} <= samples[0].members.keys()
    again = make_latent_shard(run, task)
    assert again.sha256 == made.sha256, "equal work is equal bytes"


def test_another_autoencoder_is_another_plan(tmp_path: Path, model: Path) -> None:
    run = tiny_run(tmp_path / "run", model, ["encode.threads=1"])
    seal_captions(run)
    first = plan_encoding(run)
    other = make_tiny_model(tmp_path / "other")
    config = other / "vae" / "config.json"
    config.write_text(config.read_text() + "\n")
    elsewhere = tiny_run(tmp_path / "run2", other, ["encode.threads=1"])
    seal_captions(elsewhere)
    second = plan_encoding(elsewhere)
    digests = [plan.shards[0].inputs["vae_sha256"] for plan in (first, second)]
    assert digests[0] != digests[1]
    assert first.id != second.id


def test_training_waits_for_latents_only_where_the_run_encodes(tmp_path: Path, model: Path) -> None:
    plain = load_run_config(tiny_run(tmp_path / "plain", model))
    assert "encode" not in [stage.name for stage in line_of_stages(plain)]
    assert stage_named(plain, "train").needs == ("caption",)
    encoding = load_run_config(tiny_run(tmp_path / "encoding", model, ["encode.threads=1"]))
    assert stage_named(encoding, "train").needs == ("caption", "encode")


def test_regularisation_images_beside_stored_latents_are_refused(
    tmp_path: Path, model: Path
) -> None:
    words = ["encode.threads=1", f"train.prior.shards={tmp_path}"]
    run = tiny_run(tmp_path / "run", model, words)
    seal_captions(run)
    with pytest.raises(ConfigError, match=r"encode with train\.prior"):
        plan_encoding(run)
