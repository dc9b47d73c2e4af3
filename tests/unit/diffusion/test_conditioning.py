"""Conditions are those of the stock pipelines, and unused modules get no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_bundle import TINY
from test_bundle_xl import TINY_XL

from sarhpc.diffusion.bundle import Bundle, new_bundle
from sarhpc.diffusion.conditioning import size_ids, tokenize
from sarhpc.diffusion.families.sd15 import SD15
from sarhpc.diffusion.families.sdxl import SDXL
from sarhpc.diffusion.tokenizer import train_clip_tokenizer

CAPTIONS = ["a forest near a river", "", "a river " * 30]


@pytest.fixture(scope="module", params=["sd", "xl"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tokenizer") / "clip"
    tokenizer = train_clip_tokenizer(["a forest near a river"] * 2, 530, folder)
    return new_bundle(TINY if request.param == "sd" else TINY_XL, tokenizer, seed=1)


def encoded(bundle: Bundle) -> Any:
    conditions = [tokenize(tokenizer, CAPTIONS) for tokenizer in bundle.tokenizers]
    if bundle.family.size_ids:
        conditions.append(size_ids(3, 32, 32))
    return bundle.family.condition(bundle.encoders, conditions)


def test_text_is_embedded_as_the_stock_pipeline_does(bundle: Bundle) -> None:
    context, added = encoded(bundle)
    arguments = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    stock = bundle.pipeline().encode_prompt(CAPTIONS, device="cpu", **arguments)
    torch.testing.assert_close(context, stock[0])
    assert (added is None) == (bundle.family is SD15)
    if added is not None:
        torch.testing.assert_close(added["text_embeds"], stock[2])


def test_every_parameter_but_the_unused_ones_has_a_gradient(bundle: Bundle) -> None:
    context, added = encoded(bundle)
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = bundle.backbone(
        latents, torch.tensor([1, 2, 3]), encoder_hidden_states=context, added_cond_kwargs=added
    ).sample
    prediction.square().mean().backward()
    silent = {
        parameter
        for model in bundle.models.values()
        for parameter in model.parameters()
        if parameter.grad is None
    }
    unused = bundle.family.unused_modules(bundle.encoders)
    assert silent == {parameter for module in unused for parameter in module.parameters()}
    assert bool(silent) == (bundle.family is SDXL)


@pytest.mark.parametrize("shape", [(32, 32), (64, 32)])
def test_sizes_are_those_the_stock_pipeline_assumes(shape: tuple[int, int]) -> None:
    height, width = shape
    sizes = size_ids(2, height, width)
    assert sizes.tolist() == [[height, width, 0, 0, height, width]] * 2
    assert sizes.dtype == torch.int64, "a bf16 engine would round them as floats"
