"""Decoding in parts against decoding whole, with a decoder that attends to the whole scene."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

from sarhpc.generation.scenes.decoding import decoded_in_parts

pytestmark = pytest.mark.slow


def test_decoding_in_parts_is_decoding_whole() -> None:
    torch.manual_seed(0)
    decoder = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    ).decoder
    assert decoder.mid_block.attentions[0] is not None, "one that attends to the whole scene"
    latent = torch.randn(1, 4, 45, 61, generator=torch.Generator().manual_seed(0))
    latent[:, :, 20:] *= 4  # parts that differ, whose own statistics would be others
    with torch.no_grad():
        whole = decoder(latent)
        parts = decoded_in_parts(decoder, latent, 16)
        torch.testing.assert_close(parts, whole, atol=2e-5, rtol=1e-5)
        cut = decoder(latent[:, :, 16:45, :32])[:, :, 16:, 16:96]
    apart = (cut - whole[:, :, 144:360, 16:96])[:, :, 8:-8, 8:-8].abs().max()
    assert apart > 100 * (parts - whole).abs().max(), "what decoding parts by themselves gives"
