"""A WordPiece tokenizer of the BERT kind, trained on captions; equal captions give equal bytes."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers
from transformers import BertTokenizerFast

from hpc.errors import ConfigError, DataError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
"""BERT's special tokens, then the two of BLIP: [DEC] begins a text to be written."""

_Pair = tuple[str, str]


def train_bert_tokenizer(
    captions: Iterable[str], vocab_size: int, out: Path | None = None
) -> BertTokenizerFast:
    """Tokenizer with at most `vocab_size` word pieces, also written to folder `out` if given.

    Raises:
        ConfigError: `vocab_size` has no room for the special tokens and the letters.
        DataError: there are no captions.
    """
    vocabulary = word_pieces(captions, vocab_size)
    tokenizer = BertTokenizerFast(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        bos_token="[DEC]",  # noqa: S106 - no password
        additional_special_tokens=["[ENC]"],
    )
    if out is not None:
        tokenizer.save_pretrained(out)
    return tokenizer


def word_pieces(captions: Iterable[str], vocab_size: int) -> list[str]:
    """Vocabulary in order: special tokens, letters, then pieces merged by falling pair frequency.

    The trainer of the `tokenizers` library settles ties by the order of a hash table, so that two
    runs differ in numbers and even in pieces; here ties go to the pair first in the alphabet.

    Raises:
        ConfigError: `vocab_size` has no room for the special tokens and the letters.
        DataError: there are no captions.
    """
    counts = _count_words(captions)
    if not counts:
        raise DataError("no captions to train a tokenizer on: give sets that have some.")
    words = [[word[0], *(f"##{letter}" for letter in word[1:])] for word in counts]
    vocabulary = [*SPECIAL_TOKENS, *sorted({piece for word in words for piece in word})]
    if len(vocabulary) > vocab_size:
        raise ConfigError(
            f"a vocabulary of {vocab_size} has no room for the {len(vocabulary)} special tokens "
            "and letters of these captions: raise `new.vocabulary`."
        )
    merges = _Merges(words, list(counts.values()))
    known = set(vocabulary)
    while len(vocabulary) < vocab_size and (piece := merges.merge_most_frequent()):
        # Two merges may spell one piece ("a" + "##bc", "ab" + "##c").
        if piece not in known:
            known.add(piece)
            vocabulary.append(piece)
    return vocabulary


def _count_words(captions: Iterable[str]) -> dict[str, int]:
    normalise = normalizers.BertNormalizer(lowercase=True)
    split = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        text = normalise.normalize_str(caption)
        counts.update(word for word, _ in split.pre_tokenize_str(text))
    return dict(sorted(counts.items()))


class _Merges:
    """Words as pieces, and how often each pair of neighbouring pieces occurs."""

    def __init__(self, words: list[list[str]], counts: list[int]) -> None:
        self._words, self._counts = words, counts
        self._frequency: Counter[_Pair] = Counter()
        self._where: defaultdict[_Pair, set[int]] = defaultdict(set)
        for number in range(len(words)):
            self._count(number, 1)

    def merge_most_frequent(self) -> str | None:
        """Join the most frequent pair everywhere; the new piece, None when nothing is left."""
        if not self._frequency:
            return None
        pair = min(self._frequency, key=lambda pair: (-self._frequency[pair], pair))
        piece = pair[0] + pair[1].removeprefix("##")
        for number in sorted(self._where[pair]):
            self._count(number, -1)
            self._words[number] = _joined(self._words[number], pair, piece)
            self._count(number, 1)
        return piece

    def _count(self, number: int, sign: int) -> None:
        word = self._words[number]
        for pair in itertools.pairwise(word):
            self._frequency[pair] += sign * self._counts[number]
            if sign > 0:
                self._where[pair].add(number)
            else:
                self._where[pair].discard(number)
            if not self._frequency[pair]:
                del self._frequency[pair], self._where[pair]


def _joined(word: list[str], pair: _Pair, piece: str) -> list[str]:
    joined, position = [], 0
    while position < len(word):
        found = tuple(word[position : position + 2]) == pair
        joined.append(piece if found else word[position])
        position += 2 if found else 1
    return joined
