"""The gate in the loop over the images of a shard: verdicts, redraws, the quarantine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hpc.errors import ConfigError
from sarhpc.generation.config import GATE_LEAST_PX
from sarhpc.generation.finishing import FinishedImage, SampledImage, Verdict, finished_in_order
from sarhpc.generation.gate import MOST_IN_VAIN, PlannedGate, ShardGate
from sarhpc.generation.gate_errors import NothingAcceptedError
from sarhpc.generation.judged_pixels import judged_pixels
from sarhpc.generation.plan import ImageRequest, redrawn
from sarhpc.generation.quarantine import QuarantineShard
from sarhpc.measures.gate_limits import calibrate
from sarhpc.measures.image_defects import LEAST_PX
from sarhpc.shards.images import decode_gray8, encode_gray8
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample, encode_json, sample_key

PX = 64
REDRAWS = 2


def tile(seed: int) -> NDArray[np.uint8]:
    """The 8-bit picture of a tile of single-look speckle on a smooth scene."""
    rng = np.random.default_rng([seed, 7])
    field = np.hypot(*gaussian_filter(rng.normal(size=(2, PX, PX)), (0, 0.6, 0.6)))
    scene = np.exp(0.3 * gaussian_filter(rng.normal(size=(PX, PX)), 8) * 16)
    return np.clip(60 * field * scene, 0, 255).astype(np.uint8)


def channels(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.repeat((codes / np.float32(255))[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def planned() -> PlannedGate:
    tiles = [tile(seed) for seed in range(200)]
    decoded = [channels(codes) for codes in tiles]
    limits = calibrate(tiles, 0.05, decoded=decoded, corpus_size=10_000)
    return PlannedGate(limits, None, ("val",))


DEFECTS: dict[int, Any] = {
    2: lambda image: np.full_like(image, np.nan),
    5: lambda image: np.zeros_like(image),
    7: lambda image: np.full_like(image, 0.5),
    11: lambda image: gaussian_filter(image, (1.0, 1.0, 0)),
    13: lambda image: np.minimum(image * 10, 1),
    17: lambda image: image * np.array([1.0, 1.3, 1.0], np.float32),
    19: lambda image: channels(tile(1000)),
}
"""Index -> what is wrong with its first draw; 19 repeats the image 0."""


def sampled(request: ImageRequest) -> SampledImage:
    """The first draw of some has a defect; each draw has a tile of its own."""
    image = channels(tile(1000 + request.index + 100 * request.draw))
    if request.draw == 0 and request.index in DEFECTS:
        image = DEFECTS[request.index](image).astype(np.float32)
    return SampledImage(request, image, {})


def finish(image: SampledImage, verdict: Verdict) -> FinishedImage:
    key = sample_key(4, image.request.index)
    gray = np.nan_to_num(image.image.mean(axis=2))
    members = {
        "sar.png": encode_gray8(np.round(255 * gray).astype(np.uint8)),
        "meta.json": encode_json({"key": key, "seed": image.request.seed, **verdict.facts}),
    }
    return FinishedImage(image.request, verdict, Sample(key, members))


def requests(count: int) -> list[ImageRequest]:
    return [ImageRequest(index, "a town", 10 * index) for index in range(count)]


def gated(planned: PlannedGate, folder: Path, batch: int = 4, count: int = 24) -> list[Sample]:
    """The accepted samples of a shard; the others are in quarantine below `folder`."""
    with QuarantineShard(folder / "000004.tar", 4) as quarantine:
        gate = ShardGate(planned, REDRAWS, quarantine.add)
        made = finished_in_order(
            requests(count),
            lambda asked: [sampled(request) for request in asked],
            lambda image: finish(image, gate.judge(image)),
            batch,
            gate.admit,
        )
        samples = []
        for image in made:
            if image.verdict.reason is None:
                assert image.sample is not None
                samples.append(image.sample)
            else:
                gate.refused(image)
        assert gate.draws == len(samples) + sum(1 for _ in reasons_of(gate, folder, quarantine))
        return samples


def reasons_of(gate: ShardGate, folder: Path, quarantine: QuarantineShard) -> Sequence[Sample]:
    made = quarantine.publish()
    return [] if made is None else list(read_shard(folder / "000004.tar"))


def test_planted_defects_are_quarantined_and_drawn_again_in_their_place(
    planned: PlannedGate, tmp_path: Path
) -> None:
    samples = {sample.meta["key"]: sample.meta for sample in gated(planned, tmp_path)}
    found = list(read_shard(tmp_path / "000004.tar"))
    first = {int(s.meta["gate"]["key"][6:]): s for s in found if s.meta["gate"]["draw"] == 0}
    named = {index: [r["name"] for r in first[index].meta["gate"]["reasons"]] for index in DEFECTS}
    assert named[2] == ["not finite"]
    assert named[5] == ["black"]
    assert named[7] == ["constant"]
    assert "blurred" in named[11]
    assert "too bright" in named[13]
    assert "colour leakage" in named[17]
    assert named[19] == ["duplicate"]
    for index in DEFECTS:
        meta = samples[sample_key(4, index)]
        assert meta["gate"]["draw"] >= 1
        assert meta["gate"]["verdict"] == "accepted"
        assert meta["seed"] != 10 * index
    assert [s.key for s in found] == [sample_key(4, number) for number in range(len(found))]
    assert decode_gray8(first[2].members["sar.png"]).max() == 0, "NaN can be looked at"
    text = first[11].meta["gate"]["reasons"][0]["text"]
    assert "at least" in text, "value and limit"
    assert first[11].meta["gate"]["values"]["fine_power"] < planned.limits.low["fine_power"]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_what_comes_of_a_shard_depends_on_no_batch(
    planned: PlannedGate, tmp_path: Path, batch: int
) -> None:
    calm = gated(planned, tmp_path / "calm")
    assert gated(planned, tmp_path / "other", batch) == calm
    quarantined = (tmp_path / "calm/000004.tar").read_bytes()
    assert (tmp_path / "other/000004.tar").read_bytes() == quarantined


def test_a_request_is_given_up_after_the_last_redraw_and_told(planned: PlannedGate) -> None:
    refused: list[FinishedImage] = []
    gate = ShardGate(planned, REDRAWS, refused.append)
    made = finished_in_order(
        requests(2),
        lambda asked: [SampledImage(r, np.zeros((PX, PX, 3), np.float32), {}) for r in asked],
        lambda image: finish(image, gate.judge(image)),
        2,
        gate.admit,
    )
    for image in made:
        gate.refused(image)
    assert [image.request.draw for image in refused] == [0, 1, 2, 0, 1, 2]
    assert len({image.request.seed for image in refused}) == 6
    assert gate.detail() == {"draws": "6", "unmet": "2", "quarantined black": "6"}


def test_a_gate_that_accepts_nothing_ends_with_reasons_and_numbers(
    planned: PlannedGate, tmp_path: Path
) -> None:
    def use(others: tuple[int, int]) -> int:
        gate = ShardGate(planned, 0, lambda image: None, lambda: others)
        for request in requests(200):
            image = SampledImage(request, np.zeros((PX, PX, 3), np.float32), {})
            gate.refused(finish(image, gate.judge(image)))
        return gate.draws

    with pytest.raises(
        NothingAcceptedError, match=rf"none of {MOST_IN_VAIN} images: black 64 .*200"
    ):
        use((0, 0))
    assert NothingAcceptedError.exit_code == 4
    assert use((100, 3)) == 200, "other shards have images"
    with pytest.raises(NothingAcceptedError, match="none of 76 images"):
        use((60, 0))


def test_an_image_smaller_than_the_tiles_is_refused_with_what_to_do(planned: PlannedGate) -> None:
    small = SampledImage(requests(1)[0], np.zeros((32, 32, 3), np.float32), {})
    with pytest.raises(ConfigError, match=r"at least 64 px.*generate.gate=null"):
        ShardGate(planned, 0, lambda image: None).judge(small)
    assert GATE_LEAST_PX == LEAST_PX


def test_a_black_image_is_one_under_a_law_whose_zero_has_an_amplitude(
    planned: PlannedGate,
) -> None:
    law = Normalisation("db", None, None, 1.0, 0.01)
    gate = ShardGate(dataclasses.replace(planned, law=law), 0, lambda image: None)
    dark = np.zeros((PX, PX, 3), np.float32)
    dark[:20] = channels(tile(0))[:20]
    assert gate.judge(SampledImage(requests(1)[0], dark, {})).reason == "black"


def test_codes_of_a_logarithmic_law_are_judged_as_amplitude() -> None:
    codes = tile(3)
    assert judged_pixels(codes, None) is codes
    assert judged_pixels(codes, Normalisation("mu+3sigma", 1, 1, 9.0)) is codes
    law = Normalisation("db", None, None, 4.0, 0.04)
    np.testing.assert_allclose(judged_pixels(codes, law), law.decode(codes) / 4, rtol=1e-5)
    log1p = judged_pixels(codes, Normalisation("log1p", None, None, 4.0, None, 100.0))
    assert log1p.min() > 0


def test_a_gate_is_read_as_it_was_written(planned: PlannedGate) -> None:
    law = Normalisation("db", None, None, 1.0, 0.01)
    for gate in (planned, dataclasses.replace(planned, law=law)):
        assert PlannedGate.from_json(gate.to_json()) == gate


def test_redraws_of_a_request_have_seeds_of_their_own() -> None:
    one = ImageRequest(3, "a town", 11, labels={"class": "town"})
    draws = [one]
    for _ in range(50):
        draws.append(redrawn(draws[-1]))
    assert len({draw.seed for draw in draws}) == 51
    assert draws[1] == redrawn(one)
    assert {(draw.index, draw.prompt, draw.labels["class"]) for draw in draws} == {
        (3, "a town", "town")
    }
    assert all(0 <= draw.seed < 2**63 for draw in draws)
