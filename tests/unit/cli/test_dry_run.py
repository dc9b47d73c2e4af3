"""What `--dry-run` says before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import tiny_run
from stage_verbs import say

from hpc.job.elements import run_element
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config


def test_dry_run_shows_the_plan_and_what_is_left(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = say(capsys, "run", run.root, "--dry-run")
    assert code == 0
    assert "simulate: 4 shards, 4 to make, plan " in out
    assert "tile: planned when simulate is sealed" in out
    assert "generate: planned when " in out
    assert "evaluate: planned when caption, generate are sealed" in out
    assert not (run.root / "simulate").exists()


@pytest.mark.slow
def test_a_dry_run_tells_steps_memory_and_hours_of_the_papers_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, paper = tmp_path / "paper", Path(__file__).parents[3] / "configs" / "paper_sd15.yaml"
    words = ["archive.uri=/archive", "train.keep_every_steps=2500"]
    assert main(["init", str(root), "--config", str(paper), *words]) == 0
    _, out, _ = say(capsys, "train", root, "--dry-run", "--profile", "a100")
    assert "7,500 steps for each 10,000 tiles" in out
    assert "16 a step = 2 x 8 ranks x 1" in out
    assert "train.fit=auto, 39.4 GiB a rank: micro-batch 2, without gradient checkpointing" in out
    assert "train.fit=auto leaves deterministic kernels off" in out
    assert "trainable parameters: 982.6 M of 982.6 M" in out
    assert "fits on A100-40 yes" in out
    assert "one checkpoint: 17.69 GB" in out
    # The two newest, the one being written, and those of steps 2,500 and 5,000.
    assert "about 88.43 GB in 220 inodes" in out
    assert "2.45 TFLOP an image" in out
    assert "GPU-hours on A100 (28% of peak" in out
    assert not (root / "train").exists()


@pytest.mark.slow
def test_latents_encoded_once_save_the_arithmetic_of_eleven_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = []
    for name, words in (("plain", ["encode=null", "train.fit=null"]), ("once", ["train.fit=null"])):
        root, paper = tmp_path / name, Path(__file__).parents[3] / "configs" / "paper_sd15.yaml"
        main(["init", str(root), "--config", str(paper), "archive.uri=/archive", *words])
        _, out, _ = say(capsys, "train", root, "--dry-run")
        costs.append(float(out.partition("together ")[2].partition(" PFLOP")[0].replace(",", "")))
    # 11 times 10,000 images less at 1.117 TFLOP.
    assert costs[0] - costs[1] == pytest.approx(110_000 * 1.117e-3, abs=1.5)


def test_a_dry_run_says_that_a_batch_does_not_divide(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(run.root), "cluster.ranks=3"]) == 0
    code, _, err = say(capsys, "train", run.root, "--dry-run")
    assert code == 2
    assert "train.global_batch=4 does not divide among 3 ranks: use one of 1, 2, 4 " in err


@pytest.mark.slow
def test_a_dry_run_says_after_the_cost_all_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    root = tmp_path / "run"
    missing = ["compare.models={other: /no/model}", "generate.prompts=[a lake]"]
    for words in (
        ["simulate.scenes=2", "--dry-run"],
        ["archive.uri=/no/archive", "--dry-run"],
        ["archive.uri=/no/archive", "--executor", "local"],
    ):
        code, out, err = say(capsys, "run", root, *missing, *words)
        assert code == 2
        assert ("generate: planned when" in out) == ("simulate.scenes=2" in words)
        assert ("archive.uri=/no/archive does not exist" in err) == ("simulate" not in words[0])
        for reported in (
            "models/blip does not exist; on a node with network: sarhpc fetch blip",
            "models/sd15 does not exist; on a node with network: sarhpc fetch sd15",
            "model /no/model is neither a folder",
        ):
            assert reported in err
        assert not root.exists()


def test_images_to_import_that_are_not_there_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["imported={path: /no/images}", "caption.captioner=given", "train.base_model=/m"]
    code, _, err = say(capsys, "run", tmp_path / "run", *words, "--executor", "local")
    assert code == 2
    assert "imported.path=/no/images does not exist" in err


def test_a_plan_without_shards_is_told_by_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path, ["simulate.scenes=1", "tile.pixel_m=0.1"])
    simulate = stage_named(load_run_config(run), "simulate")
    run_element(run, simulate, 0, lambda plan: [shard.id for shard in plan.shards])
    code, _, err = say(capsys, "tile", run.root, "--dry-run")
    assert code == 2
    assert "tile: the plan has no shards, 1 inputs were rejected" in err
    assert not run.plan_file("tile").exists()


def test_wrong_settings_and_missing_inputs_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["archive.uri=/no/archive", "train.base_model=/no/model", "tile.tile_px=0",
             "generate.scheduler=foo", "generate.prompts_file=/no/prompts"]  # fmt: skip
    for how in ("--dry-run", "--executor=local", "--print-sbatch"):
        code, _, err = say(capsys, "run", tmp_path / "run", *words, how)
        assert code == 2
        for reported in (
            "archive.uri=/no/archive",
            "model /no/model",
            "tile.tile_px",
            "'foo'",
            "/no/prompts",
        ):
            assert reported in err, how
    assert not (tmp_path / "run").exists()


def test_the_gate_is_mentioned_at_the_stage_that_has_one(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`compare` is not gated, and its images were said to be."""
    # A model without shapes: counting a training would take most of the time.
    words = [f"train.base_model={model}", "generate.gate.redraws=2", "--until=compare", "--dry-run"]
    code, out, _ = say(capsys, "run", tmp_path / "run", "--template", "demo", *words)
    assert code == 0
    assert out.count("a quarantined one is kept and drawn again up to 2 times") == 1
    generate = out.partition("generate: planned when ")[2].partition("compare: planned when ")[0]
    assert "3 times as many images" in generate


@pytest.mark.slow
def test_dry_run_fits_the_training_to_the_memory_that_the_profile_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(__file__).parents[3] / "sarhpc" / "embedded" / "base"
    words = [f"train.base_model={base}", "train.fit=exact", "train.precision=fp32"]
    assert main(["init", str(tmp_path / "run"), "--template", "demo", *words]) == 0
    profile = tmp_path / "small.yaml"

    def fitted(gpu_memory_gb: str) -> str:
        profile.write_text(
            "{executor: slurm, stages: {train: {gpus_per_node: 1}}" + gpu_memory_gb + "}"
        )
        _, out, _ = say(capsys, "train", tmp_path / "run", "--dry-run", "--profile", profile)
        return str(out)

    roomy = fitted(", gpu_memory_gb: 80")
    assert "train.fit=exact, 78.8 GiB a rank: micro-batch 16, without" in roomy
    assert "ZeRO-0 fp32, 16 x 128 px" in roomy
    assert "deterministic" not in roomy
    unknown = fitted("")
    assert "the profile does not say gpu_memory_gb" in unknown
    assert "A100-40: micro-batch 16" in unknown
    tight = fitted(", gpu_memory_gb: 1.6")
    assert "no layout fits on 1 ranks of 1.6 GiB" in tight
    assert "What would fit: GPUs such as A100-40" in tight
