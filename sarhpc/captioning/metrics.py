"""Caption metrics over a corpus: BLEU-1..4, ROUGE-L, CIDEr, as in the COCO caption toolkit.

Scores lie in 0..1 (CIDEr in 0..10) and compare with Table 1 of the paper and its literature, which
all report that toolkit's numbers. METEOR needs its own aligner and is not here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from hpc.errors import DataError

Tokens = list[str]
_NGram = tuple[str, ...]

_ORDERS = (1, 2, 3, 4)
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0
# The toolkit's guards against a zero in the numerator and the denominator of a precision.
_TINY, _SMALL = 1e-15, 1e-9

_CONTRACTION = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))\b", re.IGNORECASE)
# Abbreviations that keep their stop, as in PTBLexer.flex of Stanford CoreNLP: months, days, states,
# companies, titles, persons, and letters with stops between them. Those of the second group, which
# are also words, only with a capital.
_ABBREVIATION = (
    r"(?<![\w.-])(?:[A-Za-z](?:\.[A-Za-z])*|(?i:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|"
    r"fri|ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|"
    r"penn|tenn|va|vt|wisc?|wyo|inc|cos?|corp|ltd|plc|dept|assn|univ|jr|bros|blvd|rd|esq|etc|al|"
    r"seq|bldg|mr|mrs|ms|drs?|profs?|sens?|reps?|lt|col|gen|govs?|adm|rev|maj|sgt|capt|mt|ste?|"
    r"ave|pres|hon)|Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash)\.(?!\w)"
)
_WORD = re.compile(_ABBREVIATION + r"|(?i:n't\b|(?<=\s)'(?:s|re|ve|ll|d|m)\b)|\w+(?:[-.]\w+)*")


def tokenize(caption: str) -> Tokens:
    """Words in lower case without punctuation, contractions split: nearly the PTB tokenizer."""
    words = _WORD.findall(_CONTRACTION.sub(r" \1", caption.replace("’", "'")))
    return [word.lower() for word in words]


def caption_metrics(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """`bleu_1` to `bleu_4`, `rouge_l` and `cider` of captions against one or more references each.

    Raises:
        DataError: the two differ in length, are empty, or an image has no reference.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise DataError(
            f"cannot score {len(hypotheses)} captions against {len(references)} reference lists: "
            "give one caption and at least one reference per image."
        )
    said = [tokenize(caption) for caption in hypotheses]
    wanted = [[tokenize(caption) for caption in captions] for captions in references]
    scores = {f"bleu_{n}": value for n, value in zip(_ORDERS, bleu(said, wanted), strict=True)}
    return {**scores, "rouge_l": rouge_l(said, wanted), "cider": cider(said, wanted)}


def bleu(said: Sequence[Tokens], wanted: Sequence[Sequence[Tokens]]) -> tuple[float, ...]:
    """Corpus BLEU-1 to BLEU-4 with the closest reference length (Papineni et al. 2002)."""
    matches, totals = Counter[int](), Counter[int]()
    length = reference_length = 0
    for words, references in zip(said, wanted, strict=True):
        length += len(words)
        reference_length += min(
            (len(r) for r in references), key=lambda size: (abs(size - len(words)), size)
        )
        for n in _ORDERS:
            counts = _ngrams(words, n)
            most: Counter[_NGram] = Counter()
            for reference in references:
                most |= _ngrams(reference, n)
            matches[n] += (counts & most).total()
            totals[n] += counts.total()
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for n in _ORDERS:
        product *= (matches[n] + _TINY) / (totals[n] + _SMALL)
        scores.append(penalty * product ** (1 / n))
    return tuple(scores)


def rouge_l(said: Sequence[Tokens], wanted: Sequence[Sequence[Tokens]]) -> float:
    """Mean F-score (beta 1.2) of the longest common subsequence, best precision and best recall."""
    return math.fsum(map(_rouge_l, said, wanted)) / len(said)


def _rouge_l(words: Tokens, references: Sequence[Tokens]) -> float:
    common = [_common_subsequence(words, reference) for reference in references]
    precision = max(c / max(len(words), 1) for c in common)
    recall = max(c / max(len(r), 1) for c, r in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    beta2 = _ROUGE_BETA**2
    return (1 + beta2) * precision * recall / (recall + beta2 * precision)


def _common_subsequence(first: Tokens, second: Tokens) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        previous = row
        row = [0]
        for column, other in enumerate(second):
            here = previous[column] + 1 if word == other else max(previous[column + 1], row[column])
            row.append(here)
    return row[-1]


def cider(said: Sequence[Tokens], wanted: Sequence[Sequence[Tokens]]) -> float:
    """Mean CIDEr-D (Vedantam et al. 2015): TF-IDF cosine of clipped n-grams, length penalty, x10.

    Document frequencies come from these references, so that one image alone scores 0.
    """
    frequency: Counter[_NGram] = Counter()
    for references in wanted:
        frequency.update({gram for reference in references for gram in _all_ngrams(reference)})
    images = math.log(len(wanted))
    scores = []
    for words, references in zip(said, wanted, strict=True):
        mine = _tf_idf(words, frequency, images)
        similar = (_similarity(mine, _tf_idf(r, frequency, images)) for r in references)
        scores.append(10 * math.fsum(similar) / len(references))
    return math.fsum(scores) / len(scores)


_Vectors = tuple[list[dict[_NGram, float]], list[float], int]


def _tf_idf(words: Tokens, frequency: Counter[_NGram], images: float) -> _Vectors:
    """Weights by n-gram for each order, their norms, and the length in bigrams."""
    weights: list[dict[_NGram, float]] = []
    for n in _ORDERS:
        counts = _ngrams(words, n)
        weights.append(
            {g: c * (images - math.log(max(1, frequency[g]))) for g, c in counts.items()}
        )
    norms = [math.sqrt(math.fsum(value**2 for value in w.values())) for w in weights]
    return weights, norms, max(len(words) - 1, 0)


def _similarity(mine: _Vectors, reference: _Vectors) -> float:
    """Mean over orders of the clipped cosine, damped by the difference in length."""
    (weights, norms, length), (others, other_norms, other_length) = mine, reference
    damping = math.exp(-((length - other_length) ** 2) / (2 * _CIDER_SIGMA**2))
    total = 0.0
    for one, two, norm, other_norm in zip(weights, others, norms, other_norms, strict=True):
        dot = math.fsum(min(w, two[g]) * two[g] for g, w in one.items() if g in two)
        total += dot / (norm * other_norm) if norm and other_norm else dot
    return damping * total / len(_ORDERS)


def _ngrams(words: Tokens, n: int) -> Counter[_NGram]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _all_ngrams(words: Tokens) -> Iterable[_NGram]:
    for n in _ORDERS:
        yield from _ngrams(words, n)
