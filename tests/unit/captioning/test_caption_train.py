from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from caption_tiles import GROUNDS
from caption_training import STOP, fine_tune
from safetensors.torch import load_file

from hpc.errors import ConfigError, DataError, NumericalError, StopRequestedError
from sarhpc.captioning.captioners.blip import load_blip
from sarhpc.captioning.captioners.build import new_blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.batches import collate, rank_batches
from sarhpc.captioning.tuning.datasets import open_set
from sarhpc.captioning.tuning.finetune import REPORT
from sarhpc.captioning.tuning.schedule import adamw, warmup_cosine
from sarhpc.captioning.tuning.task import caption_loss
from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer

pytestmark = pytest.mark.slow


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_makes_held_out_captions_right(ground_blip: Path) -> None:
    report = json.loads((ground_blip / REPORT).read_text())
    assert report["before"]["bleu_4"] < 0.05
    assert report["after"]["bleu_4"] > 0.99
    assert report["after"]["cider"] > 9.9
    assert report["examples"][0]["caption"] == report["examples"][0]["references"][0]
    assert report["config"]["new"]["image_px"] == 32


def test_the_report_names_no_folder_of_the_machine(ground_blip: Path, ground_shards: Path) -> None:
    text = (ground_blip / REPORT).read_text()
    assert str(ground_shards) not in text
    assert str(ground_blip.parent) not in text


def test_progress_is_logged_with_validation_loss_and_captions(ground_blip: Path) -> None:
    log = rows(ground_blip.parent / "metrics.jsonl")
    losses = [row["loss"] for row in log if "loss" in row]
    validation = [row for row in log if "val_loss" in row]
    assert [row["step"] for row in log if "loss" in row] == [10, 20, 30, 40, 50, 60]
    assert losses[-1] < 0.2 * losses[0]
    assert [row["step"] for row in validation] == [30, 60]
    assert validation[-1]["val_loss"] < validation[0]["val_loss"]
    assert validation[-1]["val_captions"][0] == next(iter(GROUNDS))
    assert [row["event"] for row in log if "event" in row] == ["start", "before", "after"]


def test_the_published_folder_holds_half_precision_and_no_pickle(ground_blip: Path) -> None:
    weights = load_file(ground_blip / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert {path.suffix for path in ground_blip.iterdir()} == {".json", ".safetensors"}


def test_equal_configuration_gives_equal_weights_whatever_the_readers(
    ground_training: CaptionTrainConfig, tmp_path: Path
) -> None:
    short = replace(ground_training, steps=3, val=[], save_dtype="float32")
    for name, readers in (("one", 1), ("two", 4)):
        fine_tune(replace(short, readers=readers), tmp_path / name, tmp_path / f"{name}.train")
    files = ("model.safetensors", "tokenizer.json", "config.json", "preprocessor_config.json")
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_training_goes_on_from_a_published_folder(
    ground_blip: Path, ground_training: CaptionTrainConfig, tmp_path: Path
) -> None:
    more = replace(ground_training, base_model=str(ground_blip), steps=1, lr=1e-6)
    result = fine_tune(more, tmp_path / "more", tmp_path / "training")
    assert result.before["bleu_4"] > 0.99
    assert result.after["bleu_4"] > 0.99
    before, after = load_file(ground_blip / "model.safetensors"), tmp_path / "more"
    assert load_file(after / "model.safetensors").keys() == before.keys()


def test_a_failed_training_publishes_nothing_and_keeps_the_old_folder(
    ground_training: CaptionTrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "blip"
    out.mkdir()
    (out / "config.json").write_text("the model before")
    with pytest.raises(NumericalError, match="step"):
        fine_tune(replace(ground_training, lr=1e30, steps=20), out, tmp_path / "training")
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blip", "training"]
    [told] = (tmp_path / "training").glob("trouble_step_*.json")
    trouble = json.loads(told.read_text())
    assert trouble["then"] == "stopped"
    assert len(trouble["ranks"][0]["keys"]) == ground_training.batch


def test_a_stop_while_captions_are_judged_leaves_nothing_half_made(
    ground_training: CaptionTrainConfig, tmp_path: Path
) -> None:
    cfg, out, folder = replace(ground_training, steps=4), tmp_path / "blip", tmp_path / "training"
    folder.mkdir()
    (folder / STOP).touch()
    with pytest.raises(StopRequestedError, match="while captions were judged"):
        fine_tune(cfg, out, folder)
    assert [path.name for path in folder.iterdir()] == [STOP]
    (folder / STOP).unlink()
    fine_tune(cfg, out, folder)
    weights = (out / "model.safetensors").read_bytes()
    shutil.rmtree(out)

    # All steps are done, and the scores before are known: those after are what it stops in.
    (folder / STOP).touch()
    with pytest.raises(StopRequestedError, match="while captions were judged"):
        fine_tune(cfg, out, folder, attempt=1)
    assert [path.name for path in tmp_path.iterdir()] == ["training"]
    (folder / STOP).unlink()
    fine_tune(cfg, out, folder, attempt=2)
    assert (out / "model.safetensors").read_bytes() == weights
    log = rows(folder / "metrics.jsonl")
    assert [row["event"] for row in log if "event" in row] == ["start", "before", "after"]
    assert [row["step"] for row in log if "loss" in row] == [4]


def test_training_needs_a_set_with_images(
    ground_training: CaptionTrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="names no set"):
        fine_tune(replace(ground_training, train=[]), tmp_path / "a", tmp_path / "m")
    empty = [replace(ground_training.train[0], source="raw")]
    with pytest.raises(DataError, match="no captioned images"):
        fine_tune(replace(ground_training, train=empty), tmp_path / "a", tmp_path / "m")


def test_every_epoch_shows_every_image_once(ground_training: CaptionTrainConfig) -> None:
    cfg = replace(ground_training, batch=4, steps=6)
    images = open_set(cfg.train[0])
    blip = new_blip(cfg.new, train_bert_tokenizer(GROUNDS, 200))
    shown = itertools.islice(rank_batches(blip, images, cfg), cfg.steps)
    batches = [portion.passes[0][0][0] for _, portion in shown]
    assert len(batches) == 6
    everything = blip.pixels([image.read() for image in images])
    for epoch in (torch.cat(batches[:3]), torch.cat(batches[3:])):
        seen = [int((everything == image).flatten(1).all(1).nonzero()) for image in epoch]
        assert sorted(seen) == list(range(12))
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:]))


def test_the_loss_counts_the_caption_alone(
    ground_blip: Path, ground_training: CaptionTrainConfig
) -> None:
    blip = load_blip(ground_blip)
    image = open_set(ground_training.train[0])[0].read()
    cfg = replace(ground_training, prompt="calm water")
    batch = collate(blip, [(image, "in a river"), (image, "in")], cfg)
    opening = len(blip.opening("calm water")[0]) - 1
    assert (batch.ids[:, 0] == blip.model.config.text_config.bos_token_id).all()
    assert (batch.labels[:, :opening] == -100).all()
    assert (batch.labels[batch.mask == 0] == -100).all()
    counted = batch.labels[0][batch.labels[0] != -100]
    assert blip.tokenizer.decode(counted, skip_special_tokens=True) == "in a river"
    assert counted[-1] == blip.tokenizer.sep_token_id
    alone = collate(blip, [(image, "in a river")], cfg)
    padded = replace(
        alone,
        **{
            name: torch.nn.functional.pad(getattr(alone, name), (0, 3), value=value)
            for name, value in (("ids", 0), ("mask", 0), ("labels", -100))
        },
    )
    assert torch.allclose(caption_loss(blip, alone), caption_loss(blip, padded), rtol=1e-5)


def test_one_rank_takes_the_hand_written_steps_of_adamw_to_the_bit(
    ground_training: CaptionTrainConfig, tmp_path: Path
) -> None:
    cfg = replace(ground_training, steps=12, val=[], save_dtype="float32", label_smoothing=0.1)
    images = open_set(cfg.train[0])
    captions = (caption for image in images for caption in image.distinct)
    blip = new_blip(cfg.new, train_bert_tokenizer(captions, cfg.new.vocabulary), cfg.seed)
    model, rate = blip.model.train(), warmup_cosine(cfg.warmup_steps, cfg.steps)
    model.text_decoder.label_smoothing = cfg.label_smoothing
    optimizer = adamw(model, cfg.lr, cfg.weight_decay)
    for step, (_, portion) in zip(range(cfg.steps), rank_batches(blip, images, cfg), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr * rate(step)
        [((pixels, ids, mask, labels), factor)] = portion.passes
        assert factor == 1.0
        model(
            pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels
        ).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    fine_tune(cfg, tmp_path / "blip", tmp_path / "training")
    published = load_file(tmp_path / "blip" / "model.safetensors")
    wanted = model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in published.items())


@pytest.mark.parametrize("prompt", ["", "calm water"])
def test_the_parts_of_a_batch_weigh_as_many_word_pieces_as_they_count(
    ground_training: CaptionTrainConfig, prompt: str
) -> None:
    cfg = replace(ground_training, prompt=prompt, micro_batch=2, max_tokens=6)
    images = open_set(cfg.train[0])
    blip = new_blip(cfg.new, train_bert_tokenizer(GROUNDS, 200))
    whole = next(rank_batches(blip, images, replace(cfg, micro_batch=None)))[1]
    parts = [next(rank_batches(blip, images, cfg, rank=rank, world=2))[1] for rank in (0, 1)]
    passes = [one for part in parts for one in part.passes]
    assert len(passes) == 4
    counts = [int((inputs[3] != -100).sum()) for inputs, _ in passes]
    [(inputs, factor)] = whole.passes
    assert (sum(counts), factor) == (int((inputs[3] != -100).sum()), 1.0)
    mean = sum(counts) / 4
    assert [factor for _, factor in passes] == pytest.approx([count / mean for count in counts])
    assert [*parts[0].all_keys, *parts[1].all_keys] == whole.all_keys


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    share = warmup_cosine(10, 110)
    assert [share(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert share(60) == pytest.approx(0.5)
    assert share(110) == pytest.approx(0)
