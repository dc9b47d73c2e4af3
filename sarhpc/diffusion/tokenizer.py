"""A tokenizer of the CLIP kind, trained on the captions at hand.

Byte-level byte-pair encoding with `</w>` at the end of words, lower case, and the markers
`<|startoftext|>` and `<|endoftext|>` as the last two tokens, as in Radford et al. (2021). It needs
no third-party vocabulary and keeps the text encoder small.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from hpc.errors import DataError
from hpc.publish import publishing_directory

START, END, SUFFIX = "<|startoftext|>", "<|endoftext|>", "</w>"
MIN_VOCAB_SIZE = 2 * 256 + 2
"""Every byte, every byte at the end of a word, and the two markers."""

Pair = tuple[str, str]
Word = tuple[str, ...]


def train_clip_tokenizer(
    captions: Iterable[str], vocab_size: int, out: Path, *, max_length: int = 77
) -> CLIPTokenizer:
    """The tokenizer of at most `vocab_size` tokens, published as folder `out`.

    The bytes of `out` depend on the multiset of captions only: order does not matter and ties are
    resolved alphabetically. Merging ends early when no pair occurs twice.

    Raises:
        DataError: no caption was given, or `vocab_size` is below the bytes and markers.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise DataError(
            f"vocab_size {vocab_size} is below {MIN_VOCAB_SIZE}, the bytes and the markers"
        )
    words = _count_words(captions)
    if not words:
        raise DataError("no caption to train a tokenizer on; caption the tiles first")
    merges = _learn_merges(words, vocab_size - MIN_VOCAB_SIZE)
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + SUFFIX for letter in alphabet)]
    tokens += ["".join(pair) for pair in merges] + [START, END]
    with publishing_directory(out) as staging:
        _write(staging, {token: number for number, token in enumerate(tokens)}, merges, max_length)
    return load_clip_tokenizer(out)


def load_clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """The CLIP tokenizer in `folder`, either `tokenizer.json` or `vocab.json` with `merges.txt`.

    Raises:
        DataError: the folder has neither, or the files are damaged.
    """
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise DataError(
            f"no CLIP tokenizer in {folder}: it needs tokenizer.json, or vocab.json and merges.txt"
        )
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    # The Rust part of tokenizers raises a bare Exception for a damaged file.
    except Exception as error:
        raise DataError(
            f"CLIP tokenizer in {folder} cannot be read ({error}); copy it again"
        ) from error


def _count_words(captions: Iterable[str]) -> Counter[Word]:
    """How often each word occurs, split and lower-cased as by the tokenizer."""
    backend = CLIPTokenizer().backend_tokenizer
    counts: Counter[Word] = Counter()
    for caption in captions:
        text = backend.normalizer.normalize_str(caption)
        for letters, _ in backend.pre_tokenizer.pre_tokenize_str(text):
            counts[(*letters[:-1], letters[-1] + SUFFIX)] += 1
    return counts


def _learn_merges(words: Counter[Word], count: int) -> list[Pair]:
    merges: list[Pair] = []
    for _ in range(count):
        pairs: Counter[Pair] = Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        words = _apply(words, best)
    return merges


def _apply(words: Counter[Word], pair: Pair) -> Counter[Word]:
    merged: Counter[Word] = Counter()
    for word, times in words.items():
        merged[_merge(word, pair)] += times
    return merged


def _merge(word: Word, pair: Pair) -> Word:
    parts: list[str] = []
    for part in word:
        # A part made by this merge cannot be its left operand: pair[0] is shorter.
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def _write(folder: Path, vocab: dict[str, int], merges: list[Pair], max_length: int) -> None:
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
