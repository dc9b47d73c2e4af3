"""The code printed in docs/guide/extending.md, so that tests run it as it is."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "extending.md"


def code_blocks(heading: str) -> list[str]:
    """The Python blocks below a heading of the second level, in order."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    [section] = [text for text in sections if text.splitlines()[0].strip() == heading]
    return re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def module_from(monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> types.ModuleType:
    """Code of the page as the module `name`, to be imported until the test ends."""
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code, f"{PAGE.name}: {name}", "exec"), module.__dict__)
    return module


def install_plugin(
    monkeypatch: pytest.MonkeyPatch, site: Path, module: str, source: str, entry: str
) -> None:
    """Put a module and its entry point on the path, with the metadata that pip would write.

    Args:
        monkeypatch: takes it off the path when the test ends.
        site: a new folder for it.
        module: its name.
        source: its code.
        entry: its section of `entry_points.txt`.
    """
    package = module.replace("_", "-")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry)
    (site / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(site)
