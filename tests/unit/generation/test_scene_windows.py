"""Windows of a scene: each latent pixel takes one prediction, whatever size, offset and layout."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sarhpc.generation.embeddings import TextEmbedding
from sarhpc.generation.scenes.denoising import Regions, WindowedNetwork
from sarhpc.generation.scenes.windows import most_windows, window_offset, windows_of


@pytest.mark.parametrize("size", [(8, 8), (8, 21), (24, 17), (33, 16)])
def test_each_pixel_is_kept_once_by_a_window_that_lies_inside(size: tuple[int, int]) -> None:
    side = (8, 6)
    for offset in [(0, 0), (1, 5), (7, 3)]:
        kept = np.zeros(size, int)
        windows = windows_of(size, side, offset)
        assert len(windows) <= most_windows(size, side)
        for window in windows:
            kept[window.kept] += 1
            for span, length, px in zip((window.rows, window.columns), size, side, strict=True):
                assert 0 <= span.origin <= span.start < span.stop <= span.origin + px <= length
        assert (kept == 1).all()


def test_offsets_follow_from_the_seed_and_move_from_step_to_step() -> None:
    offsets = [window_offset(7, step, (16, 16)) for step in range(400)]
    assert offsets == [window_offset(7, step, (16, 16)) for step in range(400)]
    assert offsets[:20] != [window_offset(8, step, (16, 16)) for step in range(20)]
    for axis in (0, 1):
        counts = np.bincount([offset[axis] for offset in offsets], minlength=16)
        assert counts.min() > 400 / 16 / 3, "no place is spared by the borders of windows"


def test_a_window_does_not_fit_in_a_shorter_scene() -> None:
    with pytest.raises(ValueError, match="shorter than a window"):
        windows_of((7, 20), (8, 8), (0, 0))


class Network(nn.Module):
    """Predicts the mean of its text, and notes what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[int, ...], dict[str, Any]]] = []

    def forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **options: Any
    ) -> tuple[Tensor]:
        self.calls.append((tuple(sample.shape), options))
        text = encoder_hidden_states.mean((1, 2)).view(-1, 1, 1, 1)
        return (sample * 0 + text,)


def predicted(
    size: tuple[int, int], regions: Regions | None = None, hidden: Sequence[float] = (1.0, 2.0)
) -> tuple[Tensor, Network]:
    """Prediction (C, H, W) of the row with the prompt, in batches of three windows."""
    network = Network()
    pipeline = SimpleNamespace(unet=network, vae_scale_factor=8)
    windowed = WindowedNetwork(pipeline, (4, 4), 3, 3, regions=regions)
    texts = torch.tensor(hidden).view(-1, 1, 1).expand(-1, 5, 6)
    with windowed.in_place():
        whole = network(torch.zeros(len(hidden), 2, *size), torch.tensor(1), texts)[0]
    assert network.forward.__func__ is Network.forward, "the network is itself again"
    assert (whole[:-1] == hidden[0]).all()
    return whole[-1], network


def test_each_row_keeps_its_own_text_in_calls_of_one_shape() -> None:
    whole, network = predicted((9, 14))
    assert (whole == 2.0).all()
    assert {shape for shape, _ in network.calls} == {(6, 2, 4, 4)}


def test_each_pixel_is_predicted_under_the_prompt_of_its_region() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (9, 14)).astype(np.uint8)
    texts = [TextEmbedding(torch.full((5, 6), value), None, 0) for value in (10.0, 20.0)]
    whole, network = predicted((9, 14), Regions(labels, texts))
    expected = np.choose(labels, [2.0, 10.0, 20.0])
    np.testing.assert_array_equal(whole.numpy(), [expected, expected])
    assert {shape for shape, _ in network.calls} == {(6, 2, 4, 4)}


def test_a_window_of_one_region_costs_one_prediction() -> None:
    labels = np.zeros((8, 8), np.uint8)
    text = TextEmbedding(torch.full((5, 6), 10.0), None, 0)
    _, plain = predicted((8, 8))
    _, mapped = predicted((8, 8), Regions(labels, [text]))
    assert len(plain.calls) == len(mapped.calls)
