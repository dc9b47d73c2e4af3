"""What no stage could do is told before the first of them begins, not days later by the last."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import TINY, tiny_run

from hpc.config import loads
from hpc.errors import ConfigError
from sarhpc.cli import main
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.settings import require_settings

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PRIOR = "train.prior={}"
OWN = "caption_train={}"
JUDGED = "train={judge: {}, validation_prompts: [a, b], validation_seeds: [0, 1]}"
SETS = "caption_train={train: [{path: /set}]}"


def whole_line(*words: str, text: str = TINY, ranks: int | None = 2) -> None:
    config = loads(RunConfig, text, words)
    reported = None if ranks is None else lambda _: ranks
    require_settings(config, [stage.name for stage in line_of_stages(config)], reported)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["simulate.scenes=0"], r"simulate\.scenes=0"),
        (["simulate.looks=0"], r"^simulate\.looks=0"),
        (["tile.split.by=x"], r"tile\.split\.by='x': must be one of"),
        (["tile.split.fractions=[1, 1, 1]"], r"tile\.split\.fractions="),
        (["tile.split.cell_m=0"], r"tile\.split\.cell_m=0"),
        (["tile.tile_px=-3"], r"tile\.tile_px -3"),
        (["tile.tile_px=16"], r"tile\.tile_px=16: the evaluation measures"),
        (
            ["evaluate.gates.lsd_db=-1"],
            r"evaluate\.gates\.lsd_db=-1\.0: give at least 0",
        ),
        (["evaluate.gates.w1_db=nan"], r"evaluate\.gates\.w1_db=nan"),
        (["evaluate.gates.enl_ratio=[1.1, 0.9]"], r"evaluate\.gates\.enl_ratio=\[1\.1, 0\.9\]"),
        (["evaluate.autoencoder_s=-1"], r"evaluate\.autoencoder_s=-1"),
        (["simulate=null", "imported={path: /data, colour: red}"], r"imported\.colour='red'"),
        (["simulate=null", "imported={path: /data, px: 16}"], r"imported\.px=16: the evaluation"),
        (["archive.bbox=[1, 2]"], r"archive\.bbox=\[1\.0, 2\.0\]: give four numbers"),
        (["caption.captioner=cogvlm"], r"caption\.captioner='cogvlm' is unknown"),
        (["caption.degenerate=drop"], r"caption\.degenerate='drop': take reject or fallback"),
        (["caption.template.variant=TALL"], r"caption\.template\.variant='TALL'"),
        (["tile.conditions=[optical]", "optical={}"], r"leave one of them out"),
        ([OWN, "optical={}"], r"caption-train on the run's own tiles .* set caption_train\.train"),
        ([OWN, "caption_train.save_dtype=int8"], r"caption_train\.save_dtype='int8'"),
        ([OWN, "caption_train.lr=-1"], r"caption_train\.lr=-1"),
        ([OWN, "caption_train.precision=bf16"], r"caption_train\.zero_stage=0 with precision=bf16"),
        ([SETS, "caption_train.train.0.kind=shard"], r"caption_train: kind='shard' of /set"),
        ([OWN, "caption_train.batch=7"], r"caption_train\.batch=7 does not divide among 2 ranks"),
        (["encode={}", PRIOR, "prior={}"], r"encode with train\.prior"),
        ([PRIOR, "prior.steps=0"], r"prior\.steps is 0"),
        ([PRIOR, "prior.scheduler=dim"], r"prior\.scheduler is 'dim'.* mean ddim"),
        ([PRIOR, "prior.steer={}"], r"prior\.steer"),
        ([PRIOR, "prior.adapter=/data/lora"], r"prior\.adapter"),
        ([JUDGED, "train.judge.choose=bst"], r"^train\.judge\.choose='bst'"),
        ([JUDGED, "train.image_member=optic.png"], r"^train\.judge measures speckle"),
        (["train.judge={}"], r"^train\.judge compares .* and there are 1 of them"),
        ([JUDGED, "train.validation_every_steps=0"], r"^train\.judge compares"),
        ([SETS, "caption_train.judge={}"], r"^caption_train\.judge needs held-out captions"),
        ([OWN, "caption_train.judge={choose: bst}"], r"^caption_train\.judge\.choose='bst'"),
        ([OWN, "caption_train.judge={by: fid}"], r"^caption_train\.judge\.by='fid': .* loss,"),
        ([OWN, "caption_train.judge={images: 0}"], r"^caption_train\.judge\.images=0"),
        ([OWN, "caption_train.keep_last=1"], r"^caption_train\.keep_last=1 .* use 2 or more"),
        ([OWN, "caption_train.checkpoint_every_steps=0"], r"\.checkpoint_every_steps=0: .* null"),
        (["train.keep_last=1"], r"^train\.keep_last=1 would leave no checkpoint"),
        (["train.checkpoint_every_steps=0"], r"^train\.checkpoint_every_steps=0: give"),
        (["train.keep_every_steps=0"], r"^train\.keep_every_steps=0: give at least 1, or null"),
        (["train.checkpoint_every_s=-1"], r"^train\.checkpoint_every_s=-1"),
        (["train.validation_every_steps=-5"], r"^train\.validation_every_steps=-5"),
        (["train.zero_stage=9"], r"^train\.zero_stage=9: use one of 0, 1, 2, 3"),
        (["train.micro_batch=0"], r"^train\.micro_batch=0"),
        (["train.lr_unet=-1"], r"^train\.lr_unet=-1"),
        (["train.caption_dropout=10"], r"^train\.caption_dropout=10"),
        (["train.adapter={kind: lore}"], r"^train\.adapter\.kind='lore'"),
        (["train.global_batch=7"], r"^train\.global_batch=7 does not divide among 2 ranks"),
        (["export.variants=[fp8]"], r"export\.variants: 'fp8'"),
        (["generate.scheduler=foo"], r"generate\.scheduler is 'foo'"),
        (["generate.prompts_file=/none.txt"], r"cannot read generate\.prompts_file /none\.txt"),
        (["compare={models: {one: /m}, images: 0}"], r"compare\.images=0"),
        (["evaluate.bootstrap=0"], r"evaluate\.bootstrap=0: give at least 2"),
        (["evaluate.real_splits=[vall]"], r"'vall' is none of train, val, test"),
    ],
)
def test_the_setting_is_named_that_cannot_be_meant(words: list[str], reported: str) -> None:
    with pytest.raises(ConfigError, match=reported):
        whole_line(*words)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_shipped_passes(path: Path) -> None:
    whole_line(text=path.read_text(), ranks=None)
    with pytest.raises(ConfigError, match="zero_stage=9"):
        whole_line("train.zero_stage=9", text=path.read_text(), ranks=None)


def test_stages_that_stand_are_not_asked_again() -> None:
    config = loads(RunConfig, TINY, ["train.zero_stage=9"])
    require_settings(config, ["generate", "evaluate"])
    with pytest.raises(ConfigError, match="zero_stage=9"):
        require_settings(config, ["train", "generate", "evaluate"])


def test_all_that_cannot_be_meant_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["train.zero_stage=9", "generate.scheduler=foo", "evaluate.bootstrap=0"]
    run = tiny_run(tmp_path / "run", tmp_path, wrong)
    assert main(["run", str(run.root), "--executor", "local", "--dry-run"]) == 2
    reported = capsys.readouterr().err
    for setting in ("zero_stage=9", "generate.scheduler is 'foo'", "evaluate.bootstrap=0"):
        assert setting in reported
    assert not list(run.root.glob("*/plan.json"))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("tile.tile_px=0", "tile_px"),
        ("train.micro_batch=0", "micro_batch=0"),
        ("generate.shard_samples=0", "shard_samples"),
        ("cluster.ranks=3", "global_batch=4"),
    ],
)
def test_a_dry_run_checks_the_settings_before_it_counts_their_cost(
    wrong: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path, [wrong])
    assert main(["run", str(run.root), "--executor", "local", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err


def test_a_dry_run_of_one_stage_checks_those_that_it_depends_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path, ["tile.tile_px=0"])
    for words in (["train", str(run.root)], ["run", str(run.root), "--from", "train"]):
        assert main([*words, "--dry-run"]) == 2
        out, err = capsys.readouterr()
        assert (out, "tile_px" in err) == ("", True)


def test_a_run_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path, ["generate.scheduler=foo"])
    assert main(["run", str(run.root), "--executor", "local"]) == 2
    assert "generate.scheduler is 'foo'" in capsys.readouterr().err
    assert not list(run.root.glob("*/plan.json"))
    assert not (run.root / "data").exists()
