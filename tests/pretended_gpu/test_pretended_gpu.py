"""What computes on a GPU keeps to its device, and waits for it no more than it must.

tests/pretended_gpu/device.py refuses what CUDA refuses, and counts copies and waits.
"""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pretended_gpu")]

Driven = dict[str, dict[str, Any]]

TRAINED = (
    "train sd",
    "train sd fp32",
    "train sd cached",
    "train sd stored latents",
    "train sd checkpointed channels_last",
    "train sdxl",
    "train sdxl fp32",
    "train sdxl checkpointed",
    "train sd lora",
    "train sd dylora",
    "train sd loha",
    "train sd controlnet",
    "train sdxl token",
)
SAMPLED = (
    "sample sd ddim",
    "sample sd euler",
    "sample sd dpmsolver",
    "sample sd pndm",
    "sample sd fp16",
    "sample sd fp32",
    "sample sdxl fp32",
    "sample sdxl rescaled",
    "sample sdxl fp16",
)
CAPTION_TRAINED = ("blip training fp32", "blip training bf16")
CONTRASTED = "clip training"
OTHERS = (
    *("validation sd", "validation sdxl", "encode", "decoder", "grid"),
    *("blip beam", "blip nucleus", "evaluation autoencoder"),
)

MOST_COPIES = 3
"""Copies a micro-batch may take."""


def _result(driven: Driven, name: str) -> dict[str, Any]:
    found = driven[name]
    assert "error" not in found, f"{found['error']}\n" + "\n".join(found["at"])
    return found


def test_every_drive_is_judged(driven: Driven) -> None:
    assert set(driven) == {*TRAINED, *SAMPLED, *CAPTION_TRAINED, CONTRASTED, *OTHERS}


@pytest.mark.parametrize("name", TRAINED)
def test_step_that_is_not_logged_never_waits_for_the_gpu_in_its_passes(
    driven: Driven, name: str
) -> None:
    found = _result(driven, name)
    assert found["waits"] == 0, found["sites"]
    assert found["copies"] <= MOST_COPIES * found["micro_batches"], found["sites"]
    assert found["device"] == "cuda:0"
    assert found["without_gradient"] == 0


@pytest.mark.parametrize("name", TRAINED)
def test_step_launches_its_update_before_it_reads_its_loss(driven: Driven, name: str) -> None:
    found = _result(driven, name)
    assert found["before_update"] == 0, found["sites_after"]
    # The norm by which stage 0 decides about the update, and losses that have arrived by then.
    assert found["after_passes"] <= (2 if "fp32" in name else 1), found["sites_after"]


@pytest.mark.parametrize("name", ["train sd fp32", "train sdxl fp32"])
def test_loss_on_a_gpu_is_that_of_the_cpu(driven: Driven, name: str) -> None:
    found = _result(driven, name)
    assert found["loss"] == pytest.approx(found["loss_on_cpu"], rel=1e-6)


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_batch_waits_once_for_its_images(driven: Driven, name: str) -> None:
    found = _result(driven, name)
    assert found["waits"] <= 1, found["sites"]
    assert found["finite"]


@pytest.mark.parametrize("name", ["sample sd fp32", "sample sdxl fp32"])
def test_images_of_a_gpu_are_those_of_the_cpu(driven: Driven, name: str) -> None:
    assert _result(driven, name)["from_cpu"] < 1e-5


@pytest.mark.parametrize("name", CAPTION_TRAINED)
def test_caption_training_waits_for_nothing_and_starts_from_the_weights_of_the_file(
    driven: Driven, name: str
) -> None:
    found = _result(driven, name)
    assert found["waits"] == 0, found["sites"]
    assert found["copies"] <= MOST_COPIES, found["sites"]
    assert found["changed"] == []
    # The scores before and after are compared with each other.
    assert found["scored_in"] == found["published_in"] == "torch.float32"


def test_contrastive_training_waits_only_where_transformers_looks_at_its_mask(
    driven: Driven,
) -> None:
    found = _result(driven, CONTRASTED)
    assert found["blocking"] == 0, found["sites"]
    assert found["waits"] <= 2, found["sites"]
    assert found["copies"] <= MOST_COPIES, found["sites"]


@pytest.mark.parametrize("name", OTHERS)
def test_keeps_to_its_device(driven: Driven, name: str) -> None:
    _result(driven, name)


@pytest.mark.parametrize("name", ["validation sd", "validation sdxl", "grid"])
def test_image_of_a_grid_is_read_once(driven: Driven, name: str) -> None:
    found = _result(driven, name)
    assert found["syncs"] == found["images"], found["sites"]


def test_decoder_reads_its_loss_once_a_step(driven: Driven) -> None:
    found = _result(driven, "decoder")
    assert found["waits"] <= 1, found["sites"]


def test_tiles_through_the_autoencoder_are_read_once(driven: Driven) -> None:
    found = _result(driven, "evaluation autoencoder")
    assert found["waits"] <= 1, found["sites"]
    assert found["device"] == "cpu"
