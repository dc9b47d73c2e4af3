"""The rows of metrics.jsonl as TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_GROUPS = ("lr", "grad_norm")
"""Quantities that come once for each group of parameters."""


class ScalarEvents:
    """The rows as scalars: every step once, whatever attempts there were.

    Event files can only grow, and a killed writer leaves steps in them that were taken again. So
    they are rewritten from the rows that count, one event a row: a second for ten thousand.
    """

    def __init__(self, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put events of `rows` in the place of those in `folder`."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer: Any = EventFileWriter(str(folder), flush_secs=30)
        for row in rows:
            self.write(row)
        self._writer.flush()

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of a row at its step and time."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=tag_of(name), simple_value=value)
            for name, value in row.items()
            if name not in ("step", "time") and isinstance(value, int | float)
        ]
        self._writer.add_event(
            Event(wall_time=row["time"], step=row["step"], summary=Summary(value=values))
        )

    def close(self) -> None:
        """Write what is left and end the writer's thread."""
        self._writer.close()


def tag_of(name: str) -> str:
    """The tag of a number: those of one kind share a heading.

    >>> tag_of("lr_unet"), tag_of("forward_s"), tag_of("loss")
    ('lr/unet', 'seconds/forward', 'loss')
    """
    for group in _GROUPS:
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    if name.endswith("_s") and name != "samples_per_s":
        return f"seconds/{name.removesuffix('_s')}"
    return name
