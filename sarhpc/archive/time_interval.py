"""Times and time intervals in the notation of STAC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hpc.errors import ConfigError

Interval = tuple[datetime, datetime]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


def parse_interval(text: str) -> Interval:
    """First and last moment of `2019-08-04`, `2019-08-04T10:00:00Z`, `a/b`, `a/..` or `../b`.

    A day without a time is the whole day (UTC); a time without a zone is UTC.

    Raises:
        ConfigError: the text is none of these, or ends before it begins.
    """
    first, slash, last = text.partition("/")
    try:
        start = _FIRST if slash and first in ("", "..") else _bounds(first)[0]
        end_text = last if slash else first
        end = _LAST if slash and last in ("", "..") else _bounds(end_text)[1]
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not an RFC 3339 time or interval ({error}); write 2019-08-04, "
            "2019-08-04T10:00:00Z, 2019-08-04/2019-08-23 or 2019-08-04/.."
        ) from error
    if end < start:
        raise ConfigError(f"the interval {text!r} ends before it begins; swap its two times")
    return start, end


def _bounds(text: str) -> Interval:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if _DAY.fullmatch(text):
        return moment, moment + timedelta(days=1) - timedelta(microseconds=1)
    return moment, moment


def item_interval(properties: Mapping[str, Any]) -> Interval | None:
    """First and last moment of a STAC item; None where its time is unknown.

    An item whose range has no known beginning or end counts as unknown.
    """
    if properties.get("datetime"):
        return _bounds(properties["datetime"])
    start, end = properties.get("start_datetime"), properties.get("end_datetime")
    if not start or not end or str(end).startswith("9999"):
        return None
    return _bounds(start)[0], _bounds(end)[1]
