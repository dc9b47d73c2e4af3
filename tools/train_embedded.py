"""Train the embedded models again, step by step: `make embedded`, or one step by name.

    pool         scenes of the procedural archive as arrays, for the autoencoder
    autoencoder  the f8 autoencoder on optical and SAR crops
    captions     archive, tiles and true captions of the base run
    start        an untrained bundle around the autoencoder, its tokenizer trained on the captions
    base         U-Net and text encoder on optical tiles
    sar          the base fine-tuned on SAR tiles
    blip         the small captioner
    clip         the small CLIP on radar tiles
    install      fp16 copies in sarhpc/embedded

By name only:

    control      the fine-tuning once more, on shuffled captions

Every step goes on where it was, and leaves what it makes under build/embedded.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "embedded"
CONFIGS = ROOT / "configs" / "embedded"
EMBEDDED = ROOT / "sarhpc" / "embedded"
HELD_OUT_EVERY = 6


def pool() -> None:
    """Optical and SAR pictures of whole scenes, every sixth of them held out."""
    from hpc.config import load
    from sarhpc.archive.procedural.config import ProceduralConfig
    from sarhpc.archive.procedural.flight import scene_ids
    from sarhpc.archive.procedural.simulate import simulate_scene

    settings = load(ProceduralConfig, CONFIGS / "pool.yaml")
    for number, scene in enumerate(scene_ids(settings)):
        folder = BUILD / "tiles" / ("val" if number % HELD_OUT_EVERY == 0 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / f"{scene}.sar.npy").exists():
            continue
        simulated = simulate_scene(settings, scene)
        amplitude = np.abs(simulated.sar)
        top = amplitude.mean() + 3 * amplitude.std()
        codes = np.rint(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)
        assert simulated.optical is not None
        np.save(folder / f"{scene}.optical.npy", simulated.optical)
        np.save(folder / f"{scene}.sar.npy", codes)


def autoencoder() -> None:
    """The autoencoder, and its floor in `vae/report.json`."""
    import torch

    from hpc.config import load
    from sarhpc.diffusion.autoencoder_report import run_autoencoder
    from sarhpc.diffusion.config import AutoencoderConfig
    from sarhpc.diffusion.crops import load_pool

    torch.set_num_threads(1)
    settings = load(AutoencoderConfig, CONFIGS / "vae.yaml")
    train, held_out = (load_pool(BUILD / "tiles" / split) for split in ("train", "val"))
    run_autoencoder(settings, train, held_out, BUILD / "vae_run")


def captions() -> None:
    """Tiles with true captions."""
    _line("base", "--until", "caption")


def start() -> None:
    """An untrained bundle around the trained autoencoder."""
    from hpc.config import load
    from sarhpc.diffusion.bundle import load_autoencoder, new_bundle, save_bundle
    from sarhpc.diffusion.config import BundleConfig
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer
    from sarhpc.shards.reader import read_shard

    shards = sorted((BUILD / "base" / "data" / "samples" / "train").glob("*.tar"))
    texts = [sample.caption or "" for shard in shards for sample in read_shard(shard)]
    # Both activation phrases belong to the vocabulary, whatever the base is trained on.
    texts += [text.replace("An aerial view of", "A SAR image of") for text in texts]
    settings = load(BundleConfig, CONFIGS / "bundle.yaml")
    tokenizer = train_clip_tokenizer(texts, settings.vocab_size, BUILD / "tokenizer")
    trained = load_autoencoder(BUILD / "vae_run" / "vae")
    save_bundle(new_bundle(settings, tokenizer, seed=0, vae=trained), BUILD / "start")


def base() -> None:
    """The base on optical tiles."""
    _line("base")


def sar() -> None:
    """The base fine-tuned on SAR tiles."""
    _line("sar")


def control() -> None:
    """The fine-tuning on shuffled captions, whose prompts must mean nothing; by name only."""
    _line("sar", "train.shuffle_captions=true", name="sar_shuffled")


def blip() -> None:
    """The captioner."""
    _line("blip", "--until", "caption-train")


def clip() -> None:
    """The CLIP that reads radar tiles and captions."""
    _line("clip", "--until", "clip-train")


def install() -> None:
    """Copies in fp16 where the package finds them."""
    import shutil

    import torch

    from sarhpc.diffusion.bundle import load_autoencoder, load_bundle, save_bundle

    trained = load_autoencoder(BUILD / "vae_run" / "vae")
    for name in ("base", "sar"):
        # The decoder went on improving while the noise predictor trained on final latents.
        bundle = load_bundle(BUILD / name / "export" / "model")
        bundle = dataclasses.replace(bundle, vae=trained)
        save_bundle(bundle, EMBEDDED / name, dtype=torch.float16)
    for name, stage in (("blip", "caption-train"), ("clip", "clip-train")):
        published = BUILD / name / stage / "model"
        if published.is_dir():
            shutil.rmtree(EMBEDDED / name, ignore_errors=True)
            shutil.copytree(published, EMBEDDED / name)
    size = sum(p.stat().st_size for p in EMBEDDED.rglob("*.safetensors")) / 1e6
    print(f"embedded models: {size:.1f} MB of weights in {EMBEDDED}")


def _line(recipe: str, *flags: str, name: str | None = None) -> None:
    config = CONFIGS / f"{recipe}.yaml"
    command = [sys.executable, "-m", "sarhpc.cli", "run", str(BUILD / (name or recipe))]
    subprocess.run([*command, "--config", str(config), "--wait", *flags], check=True, cwd=ROOT)


STEPS: dict[str, Callable[[], None]] = {
    step.__name__: step
    for step in (pool, autoencoder, captions, start, base, sar, blip, clip, install)
}
BY_NAME = {"control": control}


def main(names: list[str]) -> None:
    """Run the named steps, or all of them in order."""
    for name in names or list(STEPS):
        print(f"embedded: {name}", flush=True)
        (STEPS | BY_NAME)[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
