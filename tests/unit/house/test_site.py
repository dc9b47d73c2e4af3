"""The documentation site: every link and anchor leads somewhere, and no page needs a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="make docs installs it")
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Loaded(HTMLParser):
    """What a browser loads for a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video") and named.get("src"):
            self.addresses.append(str(named["src"]))
        if tag == "link" and named.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.addresses.append(str(named["href"]))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        if page.name == "404.html":  # only a server shows it
            continue
        for address in Loaded(page.read_text()).addresses:
            assert not re.match(r"(https?:)?//", address), f"{page.name} loads {address}"
            assert (page.parent / address.partition("?")[0]).exists(), f"{page.name}: {address}"


def test_style_sheets_load_nothing_from_elsewhere(site: Path) -> None:
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import\s*)[\"']?(https?:)?//", sheet.read_text())
        assert found == [], sheet.name


def test_a_setting_is_found_by_the_search(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert "reference/settings/train.html#train.lr_unet" in index
    assert "guide/training.html#controlnet" in index


def test_pictures_stay_small() -> None:
    pictures = sorted((REPOSITORY / "docs" / "pictures").iterdir())
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []
