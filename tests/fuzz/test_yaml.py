"""YAML that a user writes: configurations, overrides, profiles and declarations."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import yaml
from case_counts import each
from document_mutations import damaged, damaged_text
from isolated_cases import problem_of

from hpc.cluster.profile import load_profile
from hpc.config import fingerprint, loads, to_yaml
from sarhpc.archive.declaration import read_declarations
from sarhpc.stages.config import RunConfig

REPOSITORY = Path(__file__).resolve().parents[2]

SNIPPETS = (
    "&a [*a]", "*unknown", "&x 1", "!!python/object:os.system x", "!!binary x", "!!timestamp x",
    "!!bool x", "!!int x", "!!set {a, b}", "!!omap [a: 1]", "<<: 1", "? [a, b]", "2001-99-99",
    "1:2:3", "0x_", "0b2", ".nan", "-.inf", "${x}", "${oc.env:HOME}", "${${${", "${oc.decode:'['}",
    "${.x}", "???", "[" * 60, "- " * 200, "%YAML 9.9", "---", "...", "\t", "|\n  a",
    "{a: {a: {a: 1}}}", "null", "~", "yes", "'", '"', "#", "@", "`", "1e999", "9" * 5000,
    "${oc.create:{a: 1}}",
)  # fmt: skip
BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
SIDECAR = """
defaults: {band: X, polarization: HH, datetime: 2019-08-01T10:00:00Z}
files:
  "*_slc_*.tif": {range_direction: "-col", incidence_deg: 44.3, calibrated: true, looks: 1}
  "a.tif": {role: optical, spacing_m: [1.0, 2.0], band_index: 1, scale: 0.5, geometry: slant}
"""


def damaged_yaml(text: str, random: Random) -> bytes:
    """A YAML text with damaged values, or with damage or a snippet in its text."""
    way = random.randrange(3)
    if way == 0:
        try:
            text = yaml.safe_dump(damaged(yaml.safe_load(text), random))
        except RecursionError:
            text = BOMB
        return text.encode("utf-8", "surrogatepass")
    if way == 1:
        return damaged_text(text, random)
    lines = text.split("\n")
    at = random.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    snippet = random.choice((*SNIPPETS, BOMB))
    lines[at] = f"{key}: {snippet}" if colon and random.random() < 0.7 else snippet
    return "\n".join(lines).encode()


def check_config(random: Random) -> None:
    path = random.choice(sorted((REPOSITORY / "configs").glob("*.yaml")))
    data = damaged_yaml(path.read_text(), random)
    overrides = [override(random) for _ in range(random.choice((0, 0, 1, 2)))]

    def read() -> None:
        text = data.decode(errors="surrogateescape")
        config = loads(RunConfig, text, overrides, source="given.yaml")
        fingerprint(config), to_yaml(config)

    problem = problem_of(read, ["given.yaml", "the command line", *overrides])
    assert problem is None, (problem, data, overrides)


def override(random: Random) -> str:
    keys = ("train.lr", "generate.prompts", "archive.bbox", "cluster", "x", "", ".",
            "train..lr", "a[", "generate.prompts[0]", "train.lr.x", "=", "\udcff",
            "compare.models.a")  # fmt: skip
    return f"{random.choice(keys)}={random.choice((*SNIPPETS, '1e-5', 'x', ''))}"


def check_profile(random: Random) -> None:
    path = random.choice(sorted((REPOSITORY / "slurm" / "profiles").glob("*.yaml")))
    data = damaged_yaml(path.read_text(), random)

    def use(given: Path) -> None:
        profile = load_profile(given)
        for stage in ("tile", "train", *profile.stages):
            resources = profile.resources_of(stage)
            profile.slurm_parameters(resources)
            profile.interpreter_command(resources, "python")

    check_file("site.yaml", data, use)


def check_declarations(random: Random) -> None:
    data = damaged_yaml(SIDECAR, random)
    check_file("sarhpc.yaml", data, lambda path: read_declarations(path.parent).of("a_slc_b.tif"))


def check_file(name: str, data: bytes, read: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        problem = problem_of(lambda: read(path), [name, "profile site"])
    assert problem is None, (problem, data)


CHECKS = (check_config, check_profile, check_declarations)


@pytest.mark.parametrize("check", CHECKS)
def test_damaged_yaml_is_refused_by_name(check: Callable[[Random], None]) -> None:
    each(25, check)


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS)
def test_much_damaged_yaml(check: Callable[[Random], None]) -> None:
    each(260, check)
