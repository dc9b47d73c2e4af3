"""Our training step beside the stock diffusers recipe: same model, tiles and precision, in one run.

    python tools/bench_train.py                                  # the embedded shape, on this CPU
    python tools/bench_train.py --bundle DIR --precision bf16 --micro-batch 16    # on a GPU

The stock side is the recipe of diffusers' text-to-image example written out: accelerate, a
DataLoader, autoencoder and text encoder in the step, torch's AdamW, clipping; U-Net and text
encoder learn, as here. Neither side keeps averaged weights. The sides take turns in processes of
their own; printed is the median step over all turns, and what each lever of ours gives alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_step import RandomTiles, make_bundle
from torch.nn.functional import mse_loss

from hpc.publish import publish_json
from sarhpc.training.metrics import peak_memory_gb

HERE = Path(__file__).parent
STOCK = "stock"
OURS = "ours"
LEVERS = ("cache_latents", "fused_optimizer", "channels_last", "compile")


class Dataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Tiles as the recipe's transforms leave them: pixels (3, H, W) in [-1, 1] and token ids."""

    def __init__(self, tiles: RandomTiles, tokenizer: Any) -> None:
        self._tiles, self._tokenizer = tiles, tokenizer

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One tile and its caption's ids."""
        image, caption = self._tiles.load(number, "sar.png")
        told = self._tokenizer(
            caption,
            max_length=self._tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return {"pixel_values": pixels, "input_ids": told.input_ids[0]}


def stock_steps(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each optimiser step of the stock recipe, and its memory in GB."""
    from accelerate import Accelerator
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    accumulation = arguments.global_batch // arguments.micro_batch
    accelerator = Accelerator(
        gradient_accumulation_steps=accumulation,
        mixed_precision="bf16" if arguments.precision == "bf16" else "no",
        cpu=not torch.cuda.is_available(),
    )
    kept = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    bundle = arguments.bundle
    vae = AutoencoderKL.from_pretrained(bundle, subfolder="vae").requires_grad_(False)
    vae.to(accelerator.device, dtype=kept)
    unet = UNet2DConditionModel.from_pretrained(bundle, subfolder="unet").train()
    text_encoder = CLIPTextModel.from_pretrained(bundle, subfolder="text_encoder").train()
    scheduler = DDPMScheduler.from_pretrained(bundle, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(bundle, subfolder="tokenizer")
    side = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    learning = list(itertools.chain(unet.parameters(), text_encoder.parameters()))
    optimizer = torch.optim.AdamW(learning, lr=5e-5, weight_decay=0.01)
    loader = torch.utils.data.DataLoader(
        Dataset(RandomTiles(arguments.samples, side), tokenizer),
        batch_size=arguments.micro_batch,
        shuffle=True,
    )
    unet, text_encoder, optimizer, loader = accelerator.prepare(
        unet, text_encoder, optimizer, loader
    )
    seconds: list[float] = []
    began, losses = time.perf_counter(), 0.0
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        with accelerator.accumulate(unet, text_encoder):
            latents = vae.encode(batch["pixel_values"].to(kept)).latent_dist.sample()
            latents = latents * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            steps = torch.randint(
                scheduler.config.num_train_timesteps, (len(latents),), device=latents.device
            )
            noisy = scheduler.add_noise(latents, noise, steps)
            states = text_encoder(batch["input_ids"], return_dict=False)[0]
            answer = unet(noisy, steps, states, return_dict=False)[0]
            loss = mse_loss(answer.float(), noise.float())
            losses += accelerator.gather(loss.repeat(arguments.micro_batch)).mean().item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            if len(seconds) == arguments.warmup + arguments.steps:
                break
    return {
        "seconds": seconds[arguments.warmup :],
        "memory_gb": peak_memory_gb(accelerator.device),
    }


def our_steps(arguments: argparse.Namespace, lever: str | None) -> dict[str, Any]:
    """The same of our engine, with one lever pulled."""
    sizes = ("steps", "warmup", "samples", "global_batch", "micro_batch", "precision", "threads")
    words = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in sizes]
    pulled = [] if lever is None else [f"{lever}=true"]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "told.json"
        subprocess.run(
            [
                *(sys.executable, str(HERE / "bench_step.py"), "--bundle", str(arguments.bundle)),
                *("--json", str(file), *words, "--set", "ema_decay=0", *pulled),
            ],
            check=True,
            capture_output=True,
        )
        told = json.loads(file.read_text())
    return {"seconds": told["steps_s"], "memory_gb": told["memory_gb"]}


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median step in s, and memory in GB, of each side over all turns."""
    sides = [STOCK, OURS, *(f"{OURS}, {lever}" for lever in arguments.levers)]
    steps: dict[str, list[float]] = {side: [] for side in sides}
    memory: dict[str, float] = {}
    for turn in range(arguments.turns):
        # Every other turn backwards, so that a machine that warms up favours nobody.
        for side in sides if turn % 2 == 0 else reversed(sides):
            if side == STOCK:
                told = _stock_alone(arguments)
            else:
                told = our_steps(arguments, side.partition(", ")[2] or None)
            steps[side] += told["seconds"]
            memory[side] = max(memory.get(side, 0.0), told["memory_gb"])
    return {
        side: {"step": statistics.median(steps[side]), "memory_gb": memory[side]} for side in sides
    }


def _stock_alone(arguments: argparse.Namespace) -> dict[str, Any]:
    """The stock side in a process of its own."""
    words = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(arguments).items()
        if name not in ("levers", "json", "stock_to")
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "told.json"
        command = [sys.executable, __file__, *words, "--stock-to", str(file)]
        subprocess.run(command, check=True, capture_output=True)
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def show(arguments: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """Print the table and, if asked for, write it."""
    stock = found[STOCK]["step"]
    print(f"{'':<24} {'ms a step':>10} {'images/s':>9} {'ratio':>6} {'GB':>6}")
    for side, told in found.items():
        rate = arguments.global_batch / told["step"]
        print(
            f"{side:<24} {told['step'] * 1e3:10.1f} {rate:9.2f} {stock / told['step']:6.2f} "
            f"{told['memory_gb']:6.2f}"
        )
    if arguments.json is not None:
        publish_json(arguments.json, found)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="diffusers folder; default: random weights")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="measured in each turn")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    # What torch compiles for CPUs gives wrong gradients, and training refuses it there.
    usable = [lever for lever in LEVERS if lever != "compile" or torch.cuda.is_available()]
    parser.add_argument("--levers", nargs="*", default=usable, choices=LEVERS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stock-to", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measure and print."""
    arguments = parse()
    if arguments.stock_to is not None:
        publish_json(arguments.stock_to, stock_steps(arguments))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        arguments.bundle = arguments.bundle or make_bundle(Path(scratch))
        show(arguments, measure(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
