"""E9 with a network: what a tile becomes, what it is compared by, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from feature_networks import LikeInception, SmallNetwork, clip_folder, dinov2_folder, script_file
from image_sets_on_disk import codes_of, speckle_amplitude
from PIL import Image
from safetensors.torch import load_file, save_file

from hpc.errors import ConfigError
from sarhpc.evaluation.backbone import features_of, load_backbone
from sarhpc.evaluation.feature_config import FeaturesConfig, check_features
from sarhpc.evaluation.feature_reference import reference_values
from sarhpc.measures.feature_distances import cubic_kernel, frechet, kernel_distance
from sarhpc.measures.feature_nulls import FeatureVerdict, judge_vectors, pair
from sarhpc.measures.features import measure
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.work.feature_distances import require_backbone

PX = (64, 64)


def config(path: Path, **settings: Any) -> FeaturesConfig:
    return FeaturesConfig(backbone=str(path), **settings)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script_file(tmp_path_factory.mktemp("script") / "network.pt")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dinov2_folder(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"))


def test_fid_and_kid_of_a_fixed_network_are_those_of_scipy(script: Path) -> None:
    backbone = load_backbone(config(script), PX)
    real, ours = (
        features_of(backbone, codes_of(speckle_amplitude(seed, 40, gain=gain))).astype(float)
        for seed, gain in ((1, 1.0), (2, 1.2))
    )
    found = reference_values(ours, real)
    cx, cy = np.cov(ours.T), np.cov(real.T)
    offset = ours.mean(0) - real.mean(0)
    expected = offset @ offset + np.trace(cx + cy - 2 * scipy.linalg.sqrtm(cx @ cy).real)
    assert found["frechet"] == pytest.approx(expected, rel=1e-3)
    assert frechet(ours, real) == pytest.approx(expected, rel=1e-3)
    pairs = (ours @ ours.T, ours @ real.T, real @ real.T)
    kernels = [cubic_kernel(one, real.shape[1]) for one in pairs]
    assert found["kernel"] == pytest.approx(kernel_distance(*kernels), rel=1e-3)
    # The order in which torchmetrics takes the features is not that of whoever drew before.
    torch.rand(3)
    state = torch.random.get_rng_state()
    assert reference_values(ours, real) == found
    assert torch.equal(torch.random.get_rng_state(), state)
    # Six images have no covariance of six features.
    assert set(reference_values(ours[:6], real[:6])) == {"kernel"}


def test_a_network_of_a_script_has_what_torch_computes_of_the_picture(script: Path) -> None:
    tiles = codes_of(speckle_amplitude(3, 2))
    backbone = load_backbone(config(script, mean=[0.5] * 3, std=[0.2] * 3, px=32), PX)
    level = np.maximum(tiles[:, 16:48, 16:48], 0.5) / 255
    batch = torch.from_numpy(((level - 0.5) / 0.2)[:, None].repeat(3, 1)).float()
    with torch.no_grad():
        expected = SmallNetwork()(batch).numpy()
    assert features_of(backbone, tiles) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert (backbone.width, backbone.kind, len(backbone.sha256)) == (6, "torchscript", 64)
    assert backbone.to_json()["input"]["px"] == 32
    # 8-bit codes and the amplitude that they stand for are one input.
    again = features_of(backbone, [np.maximum(tile, 0.5) / 255 for tile in tiles])
    assert again == pytest.approx(features_of(backbone, tiles), rel=1e-5)


def test_decibels_and_one_channel_are_an_input_too(tmp_path: Path) -> None:
    path = script_file(tmp_path / "one.pt", SmallNetwork(channels=1))
    backbone = load_backbone(config(path, channels=1, pixels="db", db=[-40.0, 0.0]), PX)
    tile = np.full(PX, 0.1, np.float32)
    with torch.no_grad():
        expected = SmallNetwork(channels=1)(torch.full((1, 1, 64, 64), 0.5)).numpy()
    assert features_of(backbone, [tile]) == pytest.approx(expected, abs=1e-5)


def test_the_published_file_of_inception_takes_codes_and_gives_features(tmp_path: Path) -> None:
    path = script_file(tmp_path / "inception.pt", LikeInception())
    backbone = load_backbone(config(path, kind="inception"), PX)
    assert (backbone.width, backbone.input.top, backbone.input.fit) == (6, 255.0, "inside")


def test_folders_of_transformers_name_their_input(dinov2: Path, clip: Path) -> None:
    tiles = codes_of(speckle_amplitude(4, 3))
    backbone = load_backbone(config(dinov2), PX)
    assert (backbone.width, backbone.input.px) == (8, 28)
    first = features_of(backbone, tiles)
    again = features_of(load_backbone(config(dinov2), PX), tiles)
    assert first.tobytes() == again.tobytes()
    # Another size of the middle, by the network's own interpolation of places.
    assert load_backbone(config(dinov2, px=56), PX).input.px == 56
    image = load_backbone(config(clip, fit="resize"), PX)
    assert (image.width, image.input.px, image.input.fit) == (8, 32, "resize")
    (dinov2 / "preprocessor_config.json").write_text(
        '{"do_center_crop": true, "crop_size": {"height": 14, "width": 14},'
        ' "image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2]}'
    )
    named = load_backbone(config(dinov2), PX).input
    assert (named.px, named.mean) == (14, (0.4, 0.4, 0.4))


def test_a_clip_whose_part_on_pictures_does_not_name_the_width_is_a_backbone() -> None:
    folder = Path(model_folder("embedded:clip"))
    written = json.loads((folder / "config.json").read_text())
    assert written["projection_dim"] != written["vision_config"].get("projection_dim")
    assert load_backbone(config(folder), PX).width == written["projection_dim"]


def test_what_is_no_backbone_is_refused_with_what_to_give(
    script: Path, clip: Path, tmp_path: Path
) -> None:
    def reason(path: Path, tile: tuple[int, int] = PX, **settings: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            load_backbone(config(path, **settings), tile)
        return str(caught.value)

    assert "does not exist" in reason(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no network")
    assert "cannot be loaded as torchscript" in reason(tmp_path / "text.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    assert "cannot be loaded as torchscript" in reason(tmp_path / "weights.pt")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded as transformers" in reason(tmp_path / "empty")
    assert "has 6 features, and evaluate.features.width is 7" in reason(script, width=7)
    assert "is no folder, which kind=transformers needs" in reason(script, kind="transformers")
    assert "takes no tile of 64 x 64 px" in reason(script, channels=1)
    small = reason(clip, (28, 28))
    assert "takes 32 x 32 px, and the tiles have 28 x 28" in small
    assert "features.fit=resize" in small
    assert "takes multiples of 8 px" in reason(clip, px=30)
    weights = load_file(clip / "model.safetensors")
    left = {name: value for name, value in weights.items() if "vision_model.post" not in name}
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((clip / "config.json").read_bytes())
    save_file(left, broken / "model.safetensors", {"format": "pt"})
    assert "which would be random" in reason(broken)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "onnx"}, "kind=onnx: give one of auto, transformers, torchscript, inception"),
        ({"fit": "pad"}, "fit=pad"),
        ({"pixels": "linear"}, "pixels=linear"),
        ({"px": 0}, "px=0: give at least 1"),
        ({"width": 0}, "width=0"),
        ({"channels": 2}, "channels=2: give 1 or 3"),
        ({"db": [3.0, -3.0]}, "db="),
        ({"mean": [0.5] * 3}, "give both"),
        ({"mean": [0.5], "std": [0.5]}, "a value for each of 3 channels"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "above 0"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], said: str) -> None:
    check_features(FeaturesConfig())
    with pytest.raises(ConfigError, match=r"evaluate\.features") as caught:
        check_features(FeaturesConfig(**settings))
    assert said in str(caught.value)


@pytest.mark.slow
def test_kid_of_real_halves_is_zero_within_two_sigma_and_grows_with_a_blur(
    test_data: Path, script: Path
) -> None:
    with tarfile.open(test_data / "mstar_soc" / "train.tar") as chips:
        names = sorted(n for n in chips.getnames() if n.lower().endswith((".jpg", ".jpeg")))
        files = [chips.extractfile(name) for name in names[::16]]
        chips_of = [np.asarray(Image.open(io.BytesIO(f.read())).convert("L")) for f in files if f]
    tiles = [chip[32:96, 32:96] for chip in chips_of if min(chip.shape) >= 96]
    backbone = load_backbone(config(script), PX)

    def blurred(sigma_px: float) -> np.ndarray:
        frequency = np.fft.fftfreq(64)
        gain = np.exp(-2 * (np.pi * sigma_px) ** 2 * np.add.outer(frequency**2, frequency**2))
        power = [np.fft.ifft2(np.fft.fft2((A / 255.0) ** 2) * gain).real for A in tiles]
        return features_of(backbone, codes_of(np.sqrt(np.maximum(power, 0)))).astype(float)

    features = {sigma: blurred(sigma) for sigma in (0.0, 0.2, 0.4, 0.6)}
    third, known = len(tiles) // 3, measure(tiles)
    deviations = []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(len(tiles))
        ours, theirs = order[:third], order[third:]
        pairing = pair(known.subset(theirs), range(len(theirs)), third, seed)
        x, y = features[0.0][ours], features[0.0][theirs]
        [found] = judge_vectors(
            x[: pairing.tiles], y, pairing, ("kernel",), reference=reference_values
        ).values()
        assert isinstance(found, FeatureVerdict)
        deviations.append(found.raw / found.null_deviation)
        if seed == 0:
            values = [
                reference_values(of[ours][: pairing.tiles], y[pairing.reference])
                for of in features.values()
            ]
    print(np.round(deviations, 1).tolist(), values)
    assert sum(abs(value) > 2 for value in deviations) <= 2
    for name in ("frechet", "kernel"):
        raw = [one[name] for one in values]
        assert raw == sorted({*raw}), name


def test_the_embedded_clip_is_a_network_by_its_name() -> None:
    require_backbone(FeaturesConfig(backbone="embedded:clip", width=64), (128, 128))
    with pytest.raises(ConfigError, match="no embedded model 'embedded:clap'"):
        require_backbone(FeaturesConfig(backbone="embedded:clap"), (128, 128))
