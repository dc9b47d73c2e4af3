"""The pages of a hostile run in headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewed_runs import hostile_run, served

from sarhpc.viewer.access import Address

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    folder = tmp_path_factory.mktemp("browsed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARHPC_STATE", str(folder / "state"))
        with served(hostile_run(folder)) as found:
            yield found


def document(url: str, profile: Path, *flags: str) -> str:
    """The document as it is after its scripts, and those of others, have had five seconds."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               f"--user-data-dir={profile}", "--virtual-time-budget=6000", *flags,
               "--dump-dom", url]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_nothing_in_a_run_acts_in_the_page(address: Address, tmp_path: Path) -> None:
    page = document(address.url, tmp_path)
    assert "data-owned" not in page
    assert page.count("<script") == 1, "its own"
    assert 'title="report" sandbox="" src="report"' in page, "its own script has run"
    assert len(re.findall(r"<h3>step \d", page)) == 2
    assert re.search(r'id="lost" class="problem" hidden', page), "it was refreshed"


@pytest.mark.parametrize("part", ["report", "inspection"])
def test_a_page_of_the_run_runs_no_script(address: Address, tmp_path: Path, part: str) -> None:
    page = document(address.url + part, tmp_path)
    assert ('id="r"' in page) or ("Integrity" in page)
    assert "data-owned" not in page


def test_another_name_for_this_machine_shows_nothing(address: Address, tmp_path: Path) -> None:
    url = address.url.replace("127.0.0.1", "rebound.example")
    page = document(url, tmp_path, "--host-resolver-rules=MAP rebound.example 127.0.0.1")
    assert "403" in page
    assert "COMPLETE" not in page
