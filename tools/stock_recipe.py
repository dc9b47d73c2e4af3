"""The stock diffusers text-to-image recipe written out, for `tools/bench_train.py`.

accelerate, a DataLoader, autoencoder and text encoders in the step, torch's AdamW, clipping. U-Net
and text encoders learn, of SDXL both; nothing keeps averaged weights.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import torch
from accelerate import Accelerator
from bench_step import RandomTiles
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sarhpc.training.metrics.log import peak_memory_gb


class Dataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Tiles as the recipe's transforms leave them: pixels (3, H, W) in [-1, 1] and token ids."""

    def __init__(self, tiles: RandomTiles, tokenizer: Any) -> None:
        self._tiles, self._tokenizer = tiles, tokenizer

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One tile and its caption's ids."""
        image, caption = self._tiles.load(number, "sar.png")
        encoded = self._tokenizer(
            caption,
            max_length=self._tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return {"pixel_values": pixels, "input_ids": encoded.input_ids[0]}


class TextConditioning(nn.Module):
    """The text encoders of a bundle, and the conditioning of its U-Net."""

    def __init__(self, bundle: Any) -> None:
        super().__init__()
        self.first = CLIPTextModel.from_pretrained(bundle, subfolder="text_encoder").train()
        self.second = None
        if (bundle / "text_encoder_2").is_dir():
            kind = CLIPTextModelWithProjection
            self.second = kind.from_pretrained(bundle, subfolder="text_encoder_2").train()

    def forward(self, ids: Tensor, side: int) -> dict[str, Any]:
        """Keyword arguments of the U-Net for token ids (B, L) and tiles of `side` px."""
        if self.second is None:
            return {"encoder_hidden_states": self.first(ids, return_dict=False)[0]}
        one = self.first(ids, output_hidden_states=True)
        two = self.second(ids, output_hidden_states=True)
        sizes = torch.tensor([side, side, 0, 0, side, side], device=ids.device)
        return {
            "encoder_hidden_states": torch.cat(
                [one.hidden_states[-2], two.hidden_states[-2]], dim=-1
            ),
            "added_cond_kwargs": {
                "text_embeds": two.text_embeds,
                "time_ids": sizes.expand(len(ids), -1),
            },
        }


def stock_steps(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each optimiser step of the recipe, and its memory in GB."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    accelerator = Accelerator(
        gradient_accumulation_steps=arguments.global_batch // arguments.micro_batch,
        mixed_precision="bf16" if arguments.precision == "bf16" else "no",
        cpu=not torch.cuda.is_available(),
    )
    kept = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    bundle = arguments.bundle
    vae = AutoencoderKL.from_pretrained(bundle, subfolder="vae").requires_grad_(False)
    vae.to(accelerator.device, dtype=kept)
    unet = UNet2DConditionModel.from_pretrained(bundle, subfolder="unet").train()
    encoders = TextConditioning(bundle)
    scheduler = DDPMScheduler.from_pretrained(bundle, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(bundle, subfolder="tokenizer")
    tokenizer.model_max_length = encoders.first.config.max_position_embeddings
    side = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    learning = list(itertools.chain(unet.parameters(), encoders.parameters()))
    optimizer = torch.optim.AdamW(learning, lr=5e-5, weight_decay=0.01)
    loader = torch.utils.data.DataLoader(
        Dataset(RandomTiles(arguments.samples, side), tokenizer),
        batch_size=arguments.micro_batch,
        shuffle=True,
        # Beside a GPU the recipe's users read ahead; on a CPU it would take the core away.
        num_workers=4 if torch.cuda.is_available() else 0,
        persistent_workers=torch.cuda.is_available(),
    )
    unet, encoders, optimizer, loader = accelerator.prepare(unet, encoders, optimizer, loader)
    seconds: list[float] = []
    used = [time.process_time()]
    began, losses = time.perf_counter(), 0.0
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        with accelerator.accumulate(unet, encoders):
            latents = vae.encode(batch["pixel_values"].to(kept)).latent_dist.sample()
            latents = latents * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            steps = torch.randint(
                scheduler.config.num_train_timesteps, (len(latents),), device=latents.device
            )
            noisy = scheduler.add_noise(latents, noise, steps)
            encoded = encoders(batch["input_ids"], side)
            answer = unet(noisy, steps, **encoded, return_dict=False)[0]
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
            used.append(time.process_time())
            if len(seconds) == arguments.warmup + arguments.steps:
                break
    return {
        "seconds": seconds[arguments.warmup :],
        "cpu_s": [after - before for before, after in itertools.pairwise(used)][arguments.warmup :],
        "memory_gb": peak_memory_gb(accelerator.device),
    }
