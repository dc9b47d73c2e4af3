"""Every command of README and docs does what its page says, as far as it can run here.

What would submit work is given `--dry-run`. `PARSED` names the verbs that are only parsed, and why.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from guide_commands import CHECKOUT, Command, mentioned_commands, printed_commands
from model_folders import captioner_layout, model_layout
from PIL import Image

from sarhpc.cli import main
from sarhpc.cli.parser import build_parser
from sarhpc.diffusion.families.sdxl import SDXL
from sarhpc.stages.registry import STAGES

PARSED = {
    "fetch": "needs a network; tests/unit/stages/test_base_models.py",
    "doctor": "takes this machine apart; tests/unit/cli/test_doctor_and_nodes.py",
    "decoder": "trains for minutes; tests/unit/diffusion/test_decoder.py",
    "evaluate": "measures for a minute; tests/unit/stages/test_two_sets.py",
    "grid": "samples for a minute; tests/unit/generation/test_grid.py",
    "export-corpus": "needs a finished corpus; tests/e2e/test_guide_corpus.py",
    "supervise": "never ends by itself; tests/unit/launch/test_supervise.py",
    "view": "never ends by itself; tests/unit/viewer",
    "demo": "ten minutes; make demo",
    "ablation": "needs several evaluated runs; tests/unit/stages/test_ablation_of_runs.py",
}
ENDLESS = {"--watch", "-f", "--follow"}
SUBMIT = {"run", "resume", *(spec.name for spec in STAGES)}
PROFILES = sorted(path.stem for path in (CHECKOUT / "slurm" / "profiles").glob("*.yaml"))
STORED_RUN = CHECKOUT / "tests" / "golden" / "run_0_1"
NATIVE = {"stable-diffusion-v1-5": "base", "blip-rsicd-ucm": "blip"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout to type commands in, with data and models under the names that the pages use."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("configs", "slurm"):
        (folder / name).symlink_to(CHECKOUT / name)
    embedded, models = CHECKOUT / "sarhpc" / "embedded", folder / "models"
    models.mkdir()
    for name, shipped in {**NATIVE, "sd15": "base", "blip": "blip"}.items():
        (models / name).symlink_to(embedded / shipped)
    (models / "sd15-speckle").mkdir()
    (models / "sd15-speckle" / "model").symlink_to(embedded / "base")
    for name in ("git-base-coco", "clip"):
        captioner_layout(models / name)
    for name in ("stable-diffusion-xl-base-1.0", "sdxl"):
        model_layout(models / name, SDXL, image_px=1024)
    speckle = np.random.default_rng(0).exponential(1.0, (2200, 2200)).astype(np.float32)
    sar = folder / "data" / "sar"
    sar.mkdir(parents=True)
    where = Affine(0.35, 0, 600_000, 0, -0.35, 5_700_000)
    with rasterio.open(sar / "strip.tif", "w", driver="GTiff", count=1, height=2200, width=2200,
                       dtype="float32", crs="EPSG:32631", transform=where) as file:  # fmt: skip
        file.write(speckle, 1)
    (sar / "sarhpc.yaml").write_text(
        "defaults: {role: sar, band: X, polarization: HH, range_direction: +col, "
        "incidence_deg: 40.0, calibrated: true, datetime: 2024-01-01T00:00:00Z}\n"
    )
    theirs = folder / "data" / "theirs"
    theirs.mkdir()
    Image.fromarray((255 * speckle[:512, :512].clip(0, 1)).astype(np.uint8)).save(theirs / "a.png")
    (theirs / "a.txt").write_text("a town")
    chip = Image.fromarray((255 * speckle[:128, :128].clip(0, 1)).astype(np.uint8))
    vehicles = yaml.safe_load((CHECKOUT / "configs" / "mstar.yaml").read_text())["imported"][
        "classes"
    ]
    for chips in (
        folder / "chips" / part / name for part in ("TRAIN", "TEST") for name in vehicles
    ):
        chips.mkdir(parents=True)
        chip.save(chips / "one.png")
    (folder / "clean.yaml").symlink_to(CHECKOUT / "configs" / "demo.yaml")
    (folder / "prompts.jsonl").write_text('{"prompt": "a lake"}\n')
    (folder / "prompts.csv").write_text("prompt,count\na harbour,4\n")
    for part in ("common", "training", "generation"):
        shutil.copytree(STORED_RUN / part, folder / "stored", dirs_exist_ok=True)
    for path in sorted((folder / "stored").rglob("*.stored")):
        path.rename(path.with_suffix(""))
    (folder / "stored" / "run").chmod(0o700)
    exported, tiles = folder / "stored/run/export/model", folder / "stored/run/data/samples"
    shutil.copytree(exported, folder / "model")
    assert main(["contract", str(exported), "--tiles", str(tiles / "train")]) == 0
    assert main(["catalog", str(sar), "--out", str(folder / "catalogue")]) == 0
    return folder


@pytest.mark.slow
def test_a_catalogue_is_told_to_programs_too(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["catalog", str(place / "data" / "sar"), "--out", str(place / "again"), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in found["scenes"]] == ["strip.tif"]
    assert found["left_out"] == []


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(place)
    for name, value in {
        "SCRATCH": place, "WORK": place, "PWD": place, "SARHPC_MODELS": place / "models",
        "SARHPC_PROJECT": "abc",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    yield place
    for made in ("new", "out"):
        shutil.rmtree(place / made, ignore_errors=True)


def filled_in(words: tuple[str, ...], place: Path, profile: str) -> list[str]:
    """The words with what stands for the user's own names replaced."""
    given, names = list(words), {"MYCLUSTER": profile, "CATALOGUE": "catalogue", "MODEL": "model"}
    names |= {"FOLDER": "chips", "runs/decoder/model": "model"}
    run = "new" if words[0] in ("run", "init") or words[0] in SUBMIT else "stored/run"
    for number, word in enumerate(given[1:], 1):
        word = word.replace("$PWD", str(place)).replace("/data/catalogue", f"{place}/catalogue")
        word = re.sub("(^|=)/(data|models)/", rf"\1{place}/\2/", word)
        word = word.replace("$SCRATCH/runs/first", run)
        for name, value in names.items():
            word = word.replace(name, value)
        parts = word.split("/")
        if parts[0] in ("RUN", "OTHER"):
            word = "/".join([run, *parts[1:]])
        elif parts[0] == "runs":
            word = "/".join([run, *parts[2:]])
        given[number] = word
    return given


def begun_run(words: list[str]) -> None:
    """Make the draft that a command without a configuration is about."""
    fine_tuned = ["caption_train.base_model=embedded:blip", "clip_train.base_model=null"]
    if words[1:2] == ["new"] and not {"--config", "--template"} & {*words}:
        assert main(["init", "new", "--config", "configs/demo.yaml", *fine_tuned]) == 0


def parse(words: list[str]) -> None:
    """Fail unless the words are a command."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(words)
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    assert not wrong, f"unknown arguments {wrong}"
    assert not rest or hasattr(arguments, "overrides"), f"{words[0]} takes no overrides: {rest}"


@pytest.mark.slow
@pytest.mark.parametrize("command", printed_commands(), ids=str)
def test_a_printed_command_runs(
    command: Command, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = filled_in(command.words, here, "a100")
    parse(words)
    if words[0] in PARSED or ENDLESS & set(words):
        return
    begun_run(words)
    if words[0] in SUBMIT and "--dry-run" not in words:
        words.append("--dry-run")
    if words[0] == "nodes":
        words += ["--cluster", "a-cluster-of-tests"]
    code = main(words)
    assert code == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "config",
    ["demo", "paper_sd15", "sdxl_full", pytest.param("sdxl_hybrid", marks=pytest.mark.long)],
)
def test_each_configuration_passes_a_dry_run_under_each_shipped_profile(
    config: str, profile: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "new", "--config", f"configs/{config}.yaml", "--profile", profile, "--dry-run"]
    if config != "demo":
        words += ["archive.uri=catalogue"]
    if config.startswith("sdxl"):
        words += ["train.base_model=fetched:sdxl"]
    code = main(words)
    out, err = capsys.readouterr()
    assert code == 0, err
    assert ("GPU-hours" in out.splitlines()[-1]) == (profile != "local")
    assert not (here / "new").exists()


@pytest.mark.parametrize("command", mentioned_commands(), ids=str)
def test_a_mentioned_command_has_its_verb_and_flags(command: Command) -> None:
    parser = build_parser()
    [verbs] = [action for action in parser._actions if action.dest == "verb"]
    verb = command.words[0]
    assert verb in (verbs.choices or ())
    known = {name for action in verbs.choices[verb]._actions for name in action.option_strings}  # type: ignore[index]
    flags = {word.strip("[]") for word in command.words if word.strip("[").startswith("-")}
    assert flags <= known
