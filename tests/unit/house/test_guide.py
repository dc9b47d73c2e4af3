"""The guide names what there is: verbs, files, profiles."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from settings_reference import settings_pages

from hpc.cluster.profile import load_profile
from sarhpc.cli.parser import build_parser

REPOSITORY = Path(__file__).resolve().parents[3]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]

REFERENCE = REPOSITORY / "docs" / "reference"
GENERATED = {REFERENCE / "verbs.md", REFERENCE / "api.md", REPOSITORY / "docs/adr/index.md"}
GENERATED |= {REFERENCE / "settings" / name for name in settings_pages()}
"""Pages that are made when the site is built (tools/docs_pages.py)."""

ELSEWHERE = {"sarhpc/stages/preview.py", "tests/data"}
"""A file that an example adds, and a folder of another repository."""


def verbs() -> dict[str, argparse.ArgumentParser]:
    parser = build_parser()
    [actions] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions.choices)


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    targets = [(page.parent / link).resolve() for link in links]
    assert [target for target in targets if not target.exists() and target not in GENERATED] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "adr"], ids=name)
def test_paths_in_the_text_exist(page: Path) -> None:
    """Pages of decisions name the files of their time; the table of long tests starts in tests/."""
    paths = re.findall(
        r"`((?:hpc|sarhpc|tests|tools|slurm|configs|docs)/[\w./-]+)`", page.read_text()
    )
    roots = (REPOSITORY, REPOSITORY / "tests")
    missing = [path for path in paths if not any((root / path).exists() for root in roots)]
    assert [path for path in missing if path not in ELSEWHERE] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_flags_exist(page: Path) -> None:
    known, strange = verbs(), []
    text = page.read_text().replace("\\\n", " ")
    for verb, words in re.findall(r"\bsarhpc (?!VERB)([a-z-]+)\b([^`\n#|;]*)", text):
        if verb not in known:
            strange.append(verb)
            continue
        flags = {flag for action in known[verb]._actions for flag in action.option_strings}
        strange += [
            f"{verb} {flag}" for flag in re.findall(r"(?<!\S)--?[a-z][a-z-]*", words)
            if flag not in flags
        ]  # fmt: skip
    assert strange == []


def test_the_profile_of_the_guide_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "docs" / "guide" / "cluster.md").read_text()
    profile, container = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "mycluster.yaml"
    path.write_text(profile + container)
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    read = load_profile(path)
    assert read.env["HF_HOME"] == "/scratch/me/hf"
    assert read.resources_of("generate").elements == 32
    assert read.container is not None
