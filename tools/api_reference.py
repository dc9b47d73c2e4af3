"""The reference of the Python interface: one page, from signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

READERS = (
    "sarhpc.shards.reader.read_shard",
    "sarhpc.shards.contract.read_contract",
    "sarhpc.shards.contract.sigma0_db",
    "sarhpc.shards.radiometry.master_amplitude",
    "sarhpc.shards.images.decode_array",
)
"""What the guides use of the modules below `sarhpc`."""


def api_page() -> str:
    """Markdown of what `import sarhpc` offers, and of the readers that the guides use."""
    package = importlib.import_module("sarhpc")
    public = [name for name in getattr(package, "__all__", ()) if not name.startswith("_")]
    lines = [
        "# Python\n",
        "Every name of `import sarhpc`, with its signature; how they work together is in "
        "[From Python](../api.md). Shards are plain WebDataset tars and need nothing of this "
        "package ([Using a corpus](../guide/corpus.md)).\n",
    ]
    if public:
        lines.append("## sarhpc\n")
        for name in public:
            lines += _entry(f"sarhpc.{name}", getattr(package, name))
    lines.append("## Readers\n")
    for path in READERS:
        module, _, name = path.rpartition(".")
        lines += _entry(path, getattr(importlib.import_module(module), name))
    return "\n".join(lines) + "\n"


def _entry(path: str, value: Any) -> list[str]:
    lines = [f"### {path} {{ #{path} }}\n"]
    if callable(value):
        lines += ["```python", _signature(path.rpartition(".")[2], value), "```\n"]
    lines += [_markdown(inspect.getdoc(value) or ""), ""]
    for name, member in vars(value).items() if inspect.isclass(value) else ():
        if not name.startswith("_") and inspect.getdoc(member):
            called = f"{value.__name__}.{name}"
            lines += ["```python", _member(called, member), "```\n"]
            lines += [_markdown(inspect.getdoc(member) or ""), ""]
    return lines


def _member(called: str, member: Any) -> str:
    """A method without its first argument, or a property with its type."""
    if isinstance(member, property):
        returns = inspect.signature(member.fget).return_annotation  # type: ignore[arg-type]
        return f"{called}: {returns}"
    function = getattr(member, "__func__", member)
    return re.sub(r"\((\s*)(self|cls)(,\s*|(?=\)))", r"(\1", _signature(called, function), count=1)


def _signature(name: str, value: Any) -> str:
    try:
        text = f"{name}{inspect.signature(value)}"
    except (TypeError, ValueError):
        return name
    text = re.sub(r"'([^']*)'", r"\1", text)
    if len(text) <= 88:
        return text
    head, _, tail = text.partition("(")
    arguments, _, returns = tail.rpartition(")")
    body = "".join(f"    {item},\n" for item in _split(arguments))
    return f"{head}(\n{body}){returns}"


def _split(arguments: str) -> list[str]:
    """Arguments of a signature, parted at the commas outside brackets."""
    found, depth = [""], 0
    for letter in arguments:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [item.strip() for item in found if item.strip()]


def _markdown(text: str) -> str:
    """A docstring of Google's layout, its sections as lists."""
    lines: list[str] = []
    in_section = False
    for line in text.splitlines():
        header = re.fullmatch(r"(Args|Returns|Raises|Yields):", line)
        if header:
            lines += ["", f"**{header[1]}**", ""]
            in_section = True
        elif in_section and re.match(r" {4}\S", line):
            name, _, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}" if rest else f"- {line.strip()}")
        elif in_section and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            in_section = in_section and not line.strip()
            lines.append(line)
    return "\n".join(lines).strip()
