"""GIT and CLIP of the real classes at a small size, saved as users have them."""

from __future__ import annotations

from pathlib import Path

import torch
from caption_tiles import GROUNDS, Rgb, draw_ground
from transformers import (
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    GitConfig,
    GitForCausalLM,
)

from sarhpc.captioning.captioners.clip import load_clip
from sarhpc.captioning.captioners.git import load_git
from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer

SIDE = 32
_TRANSFORMER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_IMAGE = {**_TRANSFORMER, "image_size": SIDE, "patch_size": 8}


def words() -> BertTokenizerFast:
    return train_bert_tokenizer(GROUNDS, 200)


def save_git(folder: Path, tokenizer: BertTokenizerFast, seed: int = 0) -> Path:
    """Write a GIT of random weights, its processor and `tokenizer`."""
    config = GitConfig(
        vision_config=_IMAGE,
        vocab_size=len(tokenizer),
        max_position_embeddings=40,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_TRANSFORMER,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        GitForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(SIDE).save_pretrained(folder)
    return folder


def processor(side: int) -> CLIPImageProcessorPil:
    crop = {"height": side, "width": side}
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop)


def save_clip(folder: Path, tokenizer: CLIPTokenizer, seed: int = 0) -> Path:
    """Write a CLIP of random weights, its processor and `tokenizer`."""
    text = {
        **_TRANSFORMER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config=_IMAGE, projection_dim=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(SIDE).save_pretrained(folder)
    return folder


def _lesson(step: int) -> tuple[list[Rgb], list[str]]:
    images = [draw_ground(color, 1000 + step, 40) for color in GROUNDS.values()]
    return images, list(GROUNDS)


def teach_git(folder: Path, steps: int = 120) -> None:
    """Train the GIT in `folder` on the four grounds until it names them."""
    git = load_git(folder)
    optimizer = torch.optim.AdamW(git.model.parameters(), lr=3e-3)
    texts = git.tokenizer(list(GROUNDS), padding=True, return_tensors="pt")
    labels = texts.input_ids.masked_fill(texts.attention_mask == 0, -100)
    for step in range(steps):
        images, _ = _lesson(step)
        git.model(**texts, pixel_values=git.pixels(images), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    git.model.save_pretrained(folder)


def teach_clip(folder: Path, steps: int = 60) -> None:
    """Train the CLIP in `folder` until each ground is nearest to its own caption."""
    clip = load_clip(folder)
    optimizer = torch.optim.AdamW(clip.model.parameters(), lr=3e-3)
    for step in range(steps):
        images, texts = _lesson(step)
        read = clip.tokenizer(texts, padding=True, return_tensors="pt")
        pixels = clip.processor(images, return_tensors="pt")["pixel_values"]
        clip.model(**read, pixel_values=pixels, return_loss=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    clip.model.save_pretrained(folder)
