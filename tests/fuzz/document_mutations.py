"""Damage to the values and the text of a document: what nobody meant JSON or YAML to hold.

Each choice is drawn from a `Random`, so Hypothesis reproduces and simplifies them.
"""

from __future__ import annotations

import contextlib
import copy
import json
from random import Random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "x", "\0", "\n", "é", "😀", "\ud800",
    "../../etc/passwd", "/dev/zero", "a" * 5000, "%s", "${oc.env:HOME}", "${x}", "???", "²", "NaN",
    "2019-99-99", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2019-08-04", "a\tb",
    [], [None], [[]], ["x"], [1, 2], [1, 2, 3, 4], [float("nan")] * 4, {}, {"x": 1}, {"": None},
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below `value`."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        container = pending.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                pending.append(container[key])
    return found


def damaged(document: Any, random: Random) -> Any:
    """`document` with up to three values replaced, removed, added or moved."""
    document = {"": copy.deepcopy(document)}
    for _ in range(random.choice((1, 1, 2, 3))):
        container, key = random.choice(places(document))
        # Of two levels that were nested deep, a copy of one inside the other is too deep to copy.
        with contextlib.suppress(RecursionError):
            _change(container, key, document, random)
    return document.get("")


def _change(container: Any, key: Any, document: Any, random: Random) -> None:
    change = random.randrange(6)
    inner = container is not document
    if change == 0 and inner:
        del container[key]
    elif change == 1 and inner and isinstance(container, dict):
        other = str(random.choice(ODD_VALUES))
        value = container.pop(key)
        container[other] = value
    elif change == 2:
        holder, other = random.choice(places(document))
        container[key] = copy.deepcopy(holder[other])
    elif change == 3:
        container[key] = [container[key]] * random.choice((0, 1, 2, 50))
    elif change == 4:
        for _ in range(random.choice((1, 40, 110))):
            container[key] = {"x": container[key]} if random.random() < 0.5 else [container[key]]
    else:
        container[key] = copy.deepcopy(random.choice(ODD_VALUES))


def as_json(document: Any, random: Random) -> bytes:
    """`document` as JSON, its text damaged now and then."""
    try:
        text = json.dumps(document, indent=random.choice((None, 1)))
    except RecursionError:
        text = "[" * 2000
    return damaged_text(text, random) if random.random() < 0.3 else text.encode()


def damaged_text(text: str, random: Random) -> bytes:
    """A text cut short, doubled, repeated inside, or with bytes that belong to no text."""
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    at = random.randrange(len(data) + 1)
    change = random.randrange(8)
    if change == 0:
        return bytes(data[:at])
    if change == 1:
        return bytes(data + data)
    if change == 2:
        data[at:at] = random.choice((b"\xff", b"\0", b"\xed\xa0\x80", b"\xc3", b"\x80", b"\x85"))
    elif change == 3:
        data[at:at] = random.choice((b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"- " * 3000))
    elif change == 4:
        data[at:at] = random.choice(("\u2028", "\x1e", "\x1c", "\r", "\ufeff", "\n")).encode()
    elif change == 5:
        del data[at : at + random.choice((1, 3, 20))]
    elif change == 6:
        return b"\xef\xbb\xbf" + bytes(data)
    else:
        end = at + random.choice((1, 10, 100))
        data[at:at] = data[at:end]
    return bytes(data)
