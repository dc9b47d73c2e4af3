"""Damage to the bytes of a file: what a bad disk, a broken copy or a stranger makes of it.

A mutation follows from its seed alone, so a finding is reproduced by its file and its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ODD_NUMBERS = (
    b"0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e308", b"1e-320", b"4294967296",
    b"99999999999999999999", b"9" * 5000, b"0x10", b"", b"1_000", "²".encode(),
)  # fmt: skip
_ODD_TEXTS = (
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"null", b"[]", b"{}", b'""', b"true",
    b"../../etc/passwd", b"\\ud800", b"${oc.env:HOME}", b"[" * 5000, b'{"a":' * 2000,
    b"<a>" * 3000,
)  # fmt: skip
_HEADER = 2048
"""Bytes in which most formats state sizes and offsets."""


def mutated(data: bytes, seed: str, other: bytes) -> tuple[str, bytes]:
    """Name of the mutations that `seed` chooses, and `data` after them; `other` is spliced in."""
    random = Random(seed)
    names = []
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        mutation = random.choice(_MUTATIONS if data else [_insert_text])
        data = mutation(data, random, other)
        names.append(mutation.__name__.strip("_"))
    return "+".join(names), data


def _place(data: bytes, random: Random) -> int:
    """A position in `data`, as often in its first bytes as anywhere."""
    return random.randrange(min(len(data), random.choice((64, _HEADER, len(data)))))


def _flip_bits(data: bytes, random: Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 2, 8, 64))):
        changed[_place(data, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set_bytes(data: bytes, random: Random, other: bytes) -> bytes:
    at, length = _place(data, random), random.choice((1, 2, 4, 16))
    value = random.choice((b"\0", b"\xff", b"\x7f", b"\x80", b" ", b"9", b"\n"))
    return data[:at] + value * len(data[at : at + length]) + data[at + length :]


def _truncate(data: bytes, random: Random, other: bytes) -> bytes:
    return data[: random.choice((0, 1, _place(data, random), random.randrange(len(data))))]


def _zero_block(data: bytes, random: Random, other: bytes) -> bytes:
    at, length = _place(data, random), random.choice((8, 64, 512, 4096, 65536))
    return data[:at] + bytes(len(data[at : at + length])) + data[at + length :]


def _repeat_block(data: bytes, random: Random, other: bytes) -> bytes:
    at, length = _place(data, random), random.choice((1, 16, 512, 4096))
    return data[: at + length] + data[at : at + length] * random.choice((1, 2, 50)) + data[at:]


def _remove_block(data: bytes, random: Random, other: bytes) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice((1, 4, 16, 512, 4096)) :]


def _change_length(data: bytes, random: Random, other: bytes) -> bytes:
    """A binary integer, as lengths and offsets are, set to a value at an edge."""
    width, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
    at = _place(data, random)
    old = int.from_bytes(data[at : at + width], order)
    top = 1 << (8 * width)
    edges = (0, 1, old + 1, old - 1, old * 2, top - 1, top >> 1, (top >> 1) - 1, len(data))
    value = random.choice((*edges, random.randrange(top))) % top
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def _change_number(data: bytes, random: Random, other: bytes) -> bytes:
    """A number written in digits set to an odd one."""
    start = _place(data, random)
    found = _NUMBER.search(data, start) or _NUMBER.search(data)
    if found is None:
        return _flip_bits(data, random, other)
    value = random.choice((*_ODD_NUMBERS, found[0] + b"0", b"-" + found[0]))
    return data[: found.start()] + value + data[found.end() :]


def _insert_text(data: bytes, random: Random, other: bytes) -> bytes:
    at = _place(data, random) if data else 0
    return data[:at] + random.choice(_ODD_TEXTS) + data[at:]


def _splice(data: bytes, random: Random, other: bytes) -> bytes:
    """The start of `data` with a part, or the end, of another file."""
    at, start = _place(data, random), random.randrange(max(len(other), 1))
    length = random.choice((16, 512, len(other)))
    part = other[start : start + length]
    return data[:at] + part + (data[at + len(part) :] if random.random() < 0.5 else b"")


_MUTATIONS: list[Callable[[bytes, Random, bytes], bytes]] = [
    _flip_bits, _flip_bits, _set_bytes, _truncate, _zero_block, _repeat_block, _remove_block,
    _change_length, _change_length, _change_number, _change_number, _insert_text, _splice,
]  # fmt: skip
