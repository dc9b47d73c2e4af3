"""Pages of the site that are made while it is built: the reference of settings and of verbs.

A hook of MkDocs, named in mkdocs.yml. What a page is made from is the source itself, so it cannot
differ from the program.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[1]


def on_startup(**_: Any) -> None:
    """Let the generators import each other and the program from this checkout."""
    for folder in (REPOSITORY, REPOSITORY / "tools"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def on_config(config: Any) -> Any:
    """List the pages of settings in the navigation."""
    from settings_reference import settings_pages

    pages = [f"reference/settings/{name}" for name in settings_pages()]
    _replace(config["nav"], "Settings", pages)
    docs = REPOSITORY / "docs"
    named = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))
    found = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    others = [name for name in found if name not in named and not name.startswith("adr/")]
    if others:
        config["nav"].append({"More": others})
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Show links to files of the repository, which the site does not hold, as their text."""
    docs, folder = REPOSITORY / "docs", (REPOSITORY / "docs" / page.file.src_uri).parent

    def shown(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link[2]))
        return link[1] if target.exists() and not target.is_relative_to(docs) else link[0]

    return re.sub(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)[^)]*\)", shown, markdown)


def _replace(entries: list[Any], title: str, pages: list[str]) -> None:
    for entry in entries:
        for name, value in entry.items() if isinstance(entry, dict) else ():
            if name == title:
                entry[name] = pages
            elif isinstance(value, list):
                _replace(value, title, pages)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the generated pages."""
    from api_reference import api_page
    from settings_reference import settings_pages
    from verbs_reference import verbs_page

    pages = {f"reference/settings/{name}": text for name, text in settings_pages().items()}
    pages["reference/verbs.md"] = verbs_page()
    pages["reference/api.md"] = api_page()
    pages["adr/index.md"] = _decisions()
    for name, text in pages.items():
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=text))
    return files


def _decisions() -> str:
    """A list of the pages of decisions, which are written one by one."""
    lines = ["# Decisions\n", "What cost something to decide, with the reasons of its time.\n"]
    for path in sorted((REPOSITORY / "docs" / "adr").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"
