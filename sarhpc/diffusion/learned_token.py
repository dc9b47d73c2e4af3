"""Textual inversion: a new token for what the base never saw; only its embedding is trained.

Gal et al. (2022). The new row is a parameter of its own beside the embedding table of the base, so
nothing else of the table can change, under any optimiser and any sharding.
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
from sarhpc.diffusion.families.family import ModelFamily

EMBEDDING_FILE = "learned_embeds.safetensors"
"""The name that textual inversions are published under."""


class TokenEmbedding(nn.Module):
    """Embedding table of a text encoder, with a `learned` row for token `text` of id `number`."""

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

    def merged(self) -> nn.Embedding:
        """A plain table with the learned row in its place."""
        rows = max(len(self.weight), self.number + 1)
        table = nn.Embedding(rows, self.weight.shape[1], dtype=self.weight.dtype)
        with torch.no_grad():
            table.weight[: len(self.weight)] = self.weight
            table.weight[self.number] = self.learned
        return table.requires_grad_(self.weight.requires_grad)


def add_token(bundle: Bundle, cfg: TokenConfig) -> Bundle:
    """`bundle` with the token of `cfg` added, its row initialised as that of the initialiser word.

    Raises:
        ConfigError: the base has the token already, or the initialiser has no tokens.
    """
    tokenizers = [_with_token(tokenizer, cfg.text) for tokenizer in bundle.tokenizers]
    for encoder, tokenizer in zip(bundle.encoders, tokenizers, strict=True):
        table = encoder.get_input_embeddings()
        start = _initial_row(table, tokenizer, cfg.initializer)
        number = len(tokenizer) - 1
        encoder.set_input_embeddings(TokenEmbedding(table, cfg.text, number, start))
        _pool_at_end(encoder, tokenizer)
    return replace(bundle, tokenizers=tuple(tokenizers))


def _with_token(tokenizer: CLIPTokenizer, text: str) -> CLIPTokenizer:
    if text in tokenizer.get_vocab():
        raise ConfigError(
            f"token.text={text!r} is already in the vocabulary of the base model; use a new one, "
            f"such as <{text.strip('<>')}-2>"
        )
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens(text)
    return grown


def _initial_row(table: nn.Embedding, tokenizer: CLIPTokenizer, word: str) -> Tensor:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if not ids:
        raise ConfigError("token.initializer is empty: set it to the word to initialise from")
    return table.weight[torch.tensor(ids)].detach().mean(dim=0)


def _pool_at_end(encoder: Any, tokenizer: CLIPTokenizer) -> None:
    """Take the pooled embedding at the end marker, whatever its id.

    The published encoders take the highest id in the prompt for the end, and a new token has a
    higher one: the pooled embedding would ignore what comes after it.
    """
    inner = getattr(encoder, "text_model", encoder)
    for holder in (encoder.config, inner.config, inner):
        holder.eos_token_id = tokenizer.eos_token_id


def merge_token(bundle: Bundle) -> dict[str, Tensor]:
    """Merge the learned row into a plain embedding table; the row of each encoder by its folder.

    No row without a token. Any diffusers pipeline can then use the bundle.
    """
    rows = {}
    for part, encoder in zip(bundle.family.encoders, bundle.encoders, strict=True):
        table = encoder.get_input_embeddings()
        if isinstance(table, TokenEmbedding):
            rows[part.folder] = table.learned.detach().clone()
            plain = table.merged()
            encoder.set_input_embeddings(plain)
            encoder.config.vocab_size = plain.num_embeddings
    return rows


def save_token(token: str, family: ModelFamily, rows: Mapping[str, Tensor], folder: Path) -> Path:
    """Write the row (D) of each encoder as the file that `load_textual_inversion` reads."""
    encoders = family.encoders
    keys = [encoder.embedding_key for encoder in encoders] if len(encoders) > 1 else [token]
    named = {key: rows[part.folder][None] for key, part in zip(keys, encoders, strict=True)}
    save_file(named, folder / EMBEDDING_FILE)
    return folder / EMBEDDING_FILE
