"""The rows of a table file as plain cells: CSV, JSON Lines or Parquet, read as a stream."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hpc.documents import parse_json
from hpc.errors import ConfigError

Cells = Mapping[str, object]
SUFFIXES = (".csv", ".jsonl", ".parquet")
_BATCH = 4096
_DELIMITERS = ",;\t"


def read_cells(path: Path) -> Iterator[tuple[int, Cells]]:
    """Line (row of Parquet) and cells by column of each row; blank lines are skipped.

    Raises:
        ConfigError: no such file, another kind or encoding, or a line that is no row; the message
            has file and line.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a table is a file of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; jobs read it as well, so give its absolute path")
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        _refuse_utf16(path)
        yield from _csv_rows(path) if path.suffix == ".csv" else _json_rows(path)
    except UnicodeDecodeError as error:
        raise ConfigError(_not_utf8(path)) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def unit_of(path: Path) -> str:
    """What messages count in the file: `line`, or `row` where it has no lines."""
    return "row" if path.suffix == ".parquet" else "line"


def require_columns(columns: Sequence[str], where: str) -> None:
    """Raise ConfigError unless there is a `prompt`, or a `class` from which one is made.

    Raises:
        ConfigError: the message has the columns and the nearest name.
    """
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice or "" in columns:
        raise ConfigError(f"{where}: {f'column {twice[0]} twice' if twice else 'unnamed column'}")
    if "prompt" not in columns and "class" not in columns:
        near = difflib.get_close_matches("prompt", columns, n=1) or [
            name for name in columns if name.lower() in ("text", "caption", "prompts")
        ]
        hint = f"rename {near[0]}" if near else "add it, or a column class"
        raise ConfigError(
            f"{where}: no column prompt (there are {', '.join(columns)[:200]}); {hint}"
        )


def _csv_rows(path: Path) -> Iterator[tuple[int, Cells]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = next((mark for mark in _DELIMITERS if mark in head), ",")
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        columns: list[str] = []
        try:
            for cells in reader:
                if not any(map(str.strip, cells)):
                    continue
                if not columns:
                    columns = [_column(name) for name in cells]
                    require_columns(columns, f"{path} line {reader.line_num}")
                    continue
                if len(cells) != len(columns):
                    raise ConfigError(
                        f"{path} line {reader.line_num}: {len(cells)} cells under {len(columns)} "
                        "columns; quote texts that contain the delimiter"
                    )
                yield reader.line_num, dict(zip(columns, map(str.strip, cells), strict=True))
        except csv.Error as error:
            raise ConfigError(f"{path} line {reader.line_num}: no CSV ({error})") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Cells]]:
    columns: frozenset[str] = frozenset()
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise ConfigError(f"{path} line {number}: no JSON ({error})") from error
            if not isinstance(row, dict):
                raise ConfigError(f'{path} line {number}: no object like {{"prompt": "a river"}}')
            named = {_column(name): value for name, value in row.items()}
            if not named.keys() <= columns:
                require_columns(list(named), f"{path} line {number}")
                columns = frozenset(named)
            yield number, named


def _parquet_rows(path: Path) -> Iterator[tuple[int, Cells]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [_column(name) for name in file.schema_arrow.names]
            require_columns(columns, str(path))
            for batch in file.iter_batches(_BATCH):
                lists = [column.to_pylist() for column in batch.columns]
                for cells in zip(*lists, strict=True):
                    number += 1
                    yield number, dict(zip(columns, cells, strict=True))
    except (pa.ArrowException, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{path}: no Parquet file that can be read ({first})") from error


def _column(name: str) -> str:
    """Name of a column as settings write it: `Negative prompt` is `negative_prompt`."""
    return "_".join(name.lower().split())


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise ConfigError(
            f"{path} line 1: UTF-16 or no text, UTF-8 is expected; convert it with "
            f"`iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}`"
        )


def _not_utf8(path: Path) -> str:
    """Where the first byte is that is no UTF-8, and how to convert the file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return (
                    f"{path} line {number}: byte {line[error.start]:#04x} is no UTF-8, probably "
                    f"Latin-1; convert it with `iconv -f LATIN1 -t UTF-8 {path.name} > "
                    f"utf8{path.suffix}`"
                )
    return f"{path}: no UTF-8 text"
