"""Conditions are those of the stock pipelines, and what is called unread is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_bundle import TINY
from test_bundle_xl import TINY_XL

from sarhpc.diffusion.bundle import Bundle, new_bundle
from sarhpc.diffusion.conditioning import encode_text, size_numbers, tokenize, unread
from sarhpc.diffusion.tokenizer import train_clip_tokenizer

CAPTIONS = ["a forest near a river", "", "a river " * 30]


@pytest.fixture(scope="module", params=["sd", "xl"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tokenizer") / "clip"
    tokenizer = train_clip_tokenizer(["a forest near a river"] * 2, 530, folder)
    return new_bundle(TINY if request.param == "sd" else TINY_XL, tokenizer, seed=1)


def encoded(bundle: Bundle) -> Any:
    ids = [tokenize(tokenizer, CAPTIONS) for tokenizer in bundle.tokenizers]
    return encode_text(bundle.text_encoder, ids[0], bundle.text_encoder_2, *ids[1:])


def test_text_is_embedded_as_the_stock_pipeline_does(bundle: Bundle) -> None:
    context, pooled = encoded(bundle)
    arguments = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    stock = bundle.pipeline().encode_prompt(CAPTIONS, device="cpu", **arguments)
    torch.testing.assert_close(context, stock[0])
    assert (pooled is None) == (not bundle.is_xl)
    if pooled is not None:
        torch.testing.assert_close(pooled, stock[2])


def test_every_parameter_but_the_unread_ones_has_a_gradient(bundle: Bundle) -> None:
    context, pooled = encoded(bundle)
    sizes = size_numbers(torch.zeros(3, 3, 32, 32))
    added = None if pooled is None else {"text_embeds": pooled, "time_ids": sizes}
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = bundle.unet(
        latents, torch.tensor([1, 2, 3]), encoder_hidden_states=context, added_cond_kwargs=added
    ).sample
    prediction.square().mean().backward()
    silent = {
        parameter
        for model in bundle.models.values()
        for parameter in model.parameters()
        if parameter.grad is None
    }
    assert silent == {p for module in unread(bundle.models) for p in module.parameters()}
    assert bool(silent) == bundle.is_xl


@pytest.mark.parametrize("shape", [(32, 32), (64, 32)])
def test_sizes_are_those_the_stock_pipeline_assumes(shape: tuple[int, int]) -> None:
    height, width = shape
    sizes = size_numbers(torch.zeros(2, 3, height, width))
    assert sizes.tolist() == [[height, width, 0, 0, height, width]] * 2
    assert sizes.dtype == torch.int64, "a bf16 engine would round them as floats"
