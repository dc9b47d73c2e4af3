"""The contrastive loss against a plain computation, and its gradients put together of parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from sarhpc.captioning.contrastive.loss import (
    HIGHEST_SCALE,
    Directions,
    contrastive_loss,
    in_place,
    text_digests,
)


def unit(seed: int, rows: int = 6, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1)


def test_it_is_the_mean_of_both_cross_entropies() -> None:
    images, texts, scale = unit(0), unit(1), torch.tensor([1.5], dtype=torch.float64)
    loss, _ = contrastive_loss(images, texts, scale, text_digests("abcdef"))
    logits = (math.exp(1.5) * images @ texts.T).tolist()
    total = 0.0
    for row in range(6):
        over_texts = sum(math.exp(value) for value in logits[row])
        over_images = sum(math.exp(line[row]) for line in logits)
        total += -2 * logits[row][row] + math.log(over_texts) + math.log(over_images)
    assert float(loss) == pytest.approx(total / 12, rel=1e-12)


def test_a_text_that_another_tile_has_too_is_no_negative_of_it() -> None:
    images, texts = unit(0), unit(1)
    texts[3] = texts[0]
    scale = torch.tensor([2.0], dtype=torch.float64)
    shared, _ = contrastive_loss(images, texts, scale, text_digests("abcaef"))
    plain, _ = contrastive_loss(images, texts, scale, text_digests("abcdef"))
    assert float(shared) < float(plain)
    # All tiles of one text: nothing to tell apart, so no loss and nothing learnt.
    same, _ = contrastive_loss(images, texts, scale, text_digests(["a lake"] * 6))
    assert float(same) == 0


def test_texts_that_describe_no_tile_are_negatives_of_all_images_but_those_that_they_fit() -> None:
    images, texts, wrong = unit(0), unit(1), unit(4)
    scale = torch.tensor([1.5], dtype=torch.float64)
    both = torch.stack([texts, wrong], dim=1)
    # The own caption of tile 1 fills the place where it has no other; that of 2 is caption "d".
    names = text_digests(["a", "A", "b", "b", "c", "d", "d", "D", "e", "E", "f", "F"])
    loss, _ = contrastive_loss(images, both, scale, names.reshape(6, 2))
    logits = (math.exp(1.5) * images @ texts.T).tolist()
    others = (math.exp(1.5) * images @ wrong.T).tolist()
    left_out = {(1, 1), (3, 2)}
    total = 0.0
    for row in range(6):
        over_texts = sum(math.exp(value) for value in logits[row]) + sum(
            math.exp(value) for at, value in enumerate(others[row]) if (row, at) not in left_out
        )
        over_images = sum(math.exp(line[row]) for line in logits)
        total += -2 * logits[row][row] + math.log(over_texts) + math.log(over_images)
    assert float(loss) == pytest.approx(total / 12, rel=1e-12)


@pytest.mark.parametrize("texts", [1, 2])
def test_gradients_of_parts_average_to_that_of_the_whole_batch(texts: int) -> None:
    raw, other = unit(2), unit(3, 6 * texts).reshape(6, texts, 5)
    names = text_digests("abcdefghijkl"[: 6 * texts]).reshape(6, texts)

    def gradients(parts: int) -> list[torch.Tensor]:
        total = [torch.zeros_like(raw), torch.zeros_like(other), torch.zeros(1)]
        for first in range(0, 6, 6 // parts):
            leaves = [raw.clone().requires_grad_(), other.clone().requires_grad_(),
                      torch.ones(1, dtype=torch.float64, requires_grad=True)]  # fmt: skip
            rows = [
                in_place(leaf[first : first + 6 // parts], first, leaf.detach(), parts)
                for leaf in leaves[:2]
            ]
            contrastive_loss(rows[0], rows[1], leaves[2], names)[0].backward()
            for sums, leaf in zip(total, leaves, strict=True):
                assert leaf.grad is not None
                sums += leaf.grad / parts
        return total

    for one, split in zip(gradients(1), gradients(3), strict=True):
        assert torch.allclose(one, split, atol=1e-12)
        assert one.abs().max() > 1e-4


def test_the_scale_is_bounded_and_can_come_back() -> None:
    from transformers import CLIPConfig, CLIPModel

    shape = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**shape, "vocab_size": 20, "eos_token_id": 19, "max_position_embeddings": 8}
    vision = {**shape, "image_size": 8, "patch_size": 4}
    module = Directions(CLIPModel(CLIPConfig(text_config=text, vision_config=vision)))
    with torch.no_grad():
        module.log_scale.fill_(9.0)
    ids = torch.tensor([[1, 19]])
    images, texts, scale = module(torch.rand(1, 3, 8, 8), ids, torch.ones_like(ids))
    assert float(scale.detach()) == pytest.approx(HIGHEST_SCALE)
    scale.sum().backward()
    assert module.log_scale.grad is not None
    assert float(module.log_scale.grad) == 1.0
    for vectors in (images, texts):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(1))
