"""A word of its own for what the base never saw: a new token whose embedding alone is learnt.

Textual inversion (Gal et al., 2022). The new row is a parameter beside the table of the base, so
nothing else of the table can move, under any optimiser and any sharding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from hpc.errors import ConfigError
from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.config import TokenConfig

EMBEDDING_FILE = "learned_embeds.safetensors"
"""The name that textual inversions are published under."""

# Names that readers know for the row of SDXL's two encoders.
_XL_NAMES = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class TokenEmbedding(nn.Module):
    """The word table of a text encoder with a `learned` row for token `text`, number `number`."""

    def __init__(self, table: nn.Embedding, text: str, number: int, row: Tensor) -> None:
        super().__init__()
        self.weight = table.weight
        self.learned = nn.Parameter(row.detach().clone())
        self.text, self.number = text, number

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of token ids (...)."""
        is_new = ids == self.number
        known = functional.embedding(ids.masked_fill(is_new, 0), self.weight)
        return torch.where(is_new[..., None], self.learned, known)

    def settled(self) -> nn.Embedding:
        """A plain table with the learned row in its place."""
        rows = max(len(self.weight), self.number + 1)
        table = nn.Embedding(rows, self.weight.shape[1], dtype=self.weight.dtype)
        with torch.no_grad():
            table.weight[: len(self.weight)] = self.weight
            table.weight[self.number] = self.learned
        return table.requires_grad_(self.weight.requires_grad)


def add_token(bundle: Bundle, cfg: TokenConfig) -> Bundle:
    """`bundle` that knows the token of `cfg`, its row starting as that of the initialiser word.

    Raises:
        ConfigError: the base knows the token already, or reads nothing in the initialiser.
    """
    tokenizers = [_with_token(tokenizer, cfg.text) for tokenizer in bundle.tokenizers]
    for encoder, tokenizer in zip(_encoders(bundle).values(), tokenizers, strict=True):
        table = encoder.get_input_embeddings()
        start = _initial_row(table, tokenizer, cfg.initializer)
        number = len(tokenizer) - 1
        encoder.set_input_embeddings(TokenEmbedding(table, cfg.text, number, start))
        _pool_at_end(encoder, tokenizer)
    second = {"tokenizer_2": tokenizers[1]} if bundle.is_xl else {}
    return replace(bundle, tokenizer=tokenizers[0], **second)


def _encoders(bundle: Bundle) -> dict[str, Any]:
    return {part: model for part, model in bundle.models.items() if part != "unet"}


def _with_token(tokenizer: CLIPTokenizer, text: str) -> CLIPTokenizer:
    if text in tokenizer.get_vocab():
        raise ConfigError(
            f"token.text={text!r} is a word of the base model already; give a new one, such as "
            f"<{text.strip('<>')}-2>"
        )
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens(text)
    return grown


def _initial_row(table: nn.Embedding, tokenizer: CLIPTokenizer, word: str) -> Tensor:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if not ids:
        raise ConfigError("token.initializer is empty: give the word the token starts from")
    return table.weight[torch.tensor(ids)].detach().mean(dim=0)


def _pool_at_end(encoder: Any, tokenizer: CLIPTokenizer) -> None:
    """Let the pooled embedding be that of the end marker, whatever its number.

    The published encoders take the highest number in the prompt for the end, and a new token has a
    higher one: SDXL would then see nothing of what stands behind it.
    """
    inner = getattr(encoder, "text_model", encoder)
    for holder in (encoder.config, inner.config, inner):
        holder.eos_token_id = tokenizer.eos_token_id


def settle_token(bundle: Bundle) -> dict[str, Tensor]:
    """Put the learned row into a plain word table; the row of each encoder, none without a token.

    The bundle then is one that any diffusers pipeline reads.
    """
    rows = {}
    for part, encoder in _encoders(bundle).items():
        table = encoder.get_input_embeddings()
        if isinstance(table, TokenEmbedding):
            rows[part] = table.learned.detach().clone()
            plain = table.settled()
            encoder.set_input_embeddings(plain)
            encoder.config.vocab_size = plain.num_embeddings
    return rows


def save_token(token: str, rows: Mapping[str, Tensor], folder: Path) -> Path:
    """Write the row (D) of each encoder as the file that `load_textual_inversion` reads."""
    named = {token: rows["text_encoder"][None]}
    if len(rows) > 1:
        named = {_XL_NAMES[part]: row[None] for part, row in rows.items()}
    save_file(named, folder / EMBEDDING_FILE)
    return folder / EMBEDDING_FILE
