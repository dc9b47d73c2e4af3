"""A run: one directory and one frozen configuration."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.documents import read_json
from hpc.errors import ConfigError, FingerprintMismatchError, VerificationError
from hpc.publish import publish_json, publish_text
from hpc.regular_files import read_regular_text
from hpc.shell import quoted
from hpc.store.lease import Lease
from hpc.store.ledger import Ledger
from hpc.store.run_paths import located_path, require_plain_path, stored_path

RUN_SCHEMA = "sarhpc.run/1"
_OF_REFUSED_STARTS = ("code", "submit")


def now() -> str:
    """Current time, RFC 3339 UTC to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class RunDir:
    """Paths of a run directory; all state is on disk."""

    root: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.root.name

    @property
    def quoted(self) -> str:
        """The directory as one word of a shell, for commands to copy."""
        return quoted(self.root)

    @property
    def config_file(self) -> Path:
        """The frozen configuration."""
        return self.root / "config.yaml"

    @property
    def stop_file(self) -> Path:
        """Stop request of an operator; in force until it is removed."""
        return self.root / "STOP"

    @property
    def save_file(self) -> Path:
        """Request of an operator for a checkpoint now."""
        return self.root / "SAVE"

    def stage(self, name: str) -> Path:
        """Directory of one stage."""
        return self.root / name

    def plan_file(self, stage: str) -> Path:
        """Where the plan of a stage is published."""
        return self.stage(stage) / "plan.json"

    def stored(self, path: str | Path) -> str:
        """`path` as a plan holds it: relative to the run directory if it is inside."""
        return stored_path(self.root, path)

    def located(self, stored: str) -> Path:
        """The path that a plan holds as `stored`, wherever the run is now."""
        return located_path(self.root, stored)

    def ledger(self, stage: str, lease: Lease | None = None) -> Ledger:
        """Ledger of a stage; one to publish in takes the `lease` that allows it."""
        return Ledger(self.stage(stage), lease)

    def logs(self, stage: str) -> Path:
        """Directory of the logs of a stage, one file per job and task."""
        return self.stage(stage) / "logs"

    @property
    def frozen(self) -> bool:
        """Whether the directory is there and is a run."""
        return (self.root / "run.json").is_file()

    @property
    def begun(self) -> bool:
        """Whether a job was submitted or started, or anything published.

        Until then the configuration is a draft. A start that Slurm refused leaves a snapshot of the
        code and its scripts, and begins nothing.
        """
        return any(
            files
            for folder in self.root.glob("*/")
            if folder.name not in _OF_REFUSED_STARTS and not folder.name.startswith(".")
            for _, _, files in os.walk(folder)
        )

    @property
    def info(self) -> Mapping[str, Any]:
        """Content of `run.json`.

        Raises:
            VerificationError: it is damaged.
        """
        path = self.root / "run.json"
        try:
            found = read_json(path)
        except ValueError as error:
            raise VerificationError(f"{path} is not JSON ({error}); restore it") from error
        if not isinstance(found, dict) or not isinstance(found.get("fingerprint"), str):
            raise VerificationError(f"{path} does not describe a run; restore it")
        return found

    @property
    def config_text(self) -> str:
        """The frozen configuration as YAML.

        Raises:
            ConfigError: the file is no UTF-8 text.
            OSError: it cannot be read.
        """
        try:
            return read_regular_text(self.config_file)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.config_file} is no UTF-8 text: {error}") from error


@dataclass(frozen=True)
class PreviewedRun(RunDir):
    """A run as a command would make or change it, to look at before anything is written."""

    text: str = field(repr=False)
    """Its configuration as YAML."""
    facts: Mapping[str, Any] = field(repr=False, hash=False)
    """Content of its `run.json`."""
    overrides: tuple[str, ...] = ()
    planned: str = ""
    """Stage whose directory is `scratch`, if any: plans may come with files of their own."""
    scratch: Path | None = None

    @property
    def info(self) -> Mapping[str, Any]:
        """What `run.json` would hold."""
        return self.facts

    @property
    def config_text(self) -> str:
        """The configuration that would be frozen, as YAML."""
        return self.text

    def stage(self, name: str) -> Path:
        """Directory of one stage; of the planned one that for what its plan comes with."""
        if self.scratch is not None and name == self.planned:
            return self.scratch
        return super().stage(name)


def planning_in(run: RunDir, stage: str, scratch: Path) -> RunDir:
    """The run with another directory for `stage`, so that planning it writes nothing into it."""
    return PreviewedRun(run.root, run.config_text, run.info, planned=stage, scratch=scratch)


def create_run(
    root: Path,
    config_yaml: str,
    fingerprint: str,
    overrides: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> RunDir:
    """A run directory with its configuration frozen; the existing one if it was made before.

    Raises:
        ConfigError: the directory holds something that is not a run, or jobs cannot work in it.
        FingerprintMismatchError: it is a run with another configuration.
    """
    run = RunDir(root.resolve())
    if run.frozen:
        if run.info["fingerprint"] != fingerprint:
            raise FingerprintMismatchError(
                f"{root} is frozen with configuration {run.info['fingerprint']}, but "
                f"{fingerprint} was requested; a run never changes its configuration: use another "
                "directory"
            )
        return run
    return freeze(preview_run(root, config_yaml, fingerprint, overrides, facts))


def preview_run(
    root: Path,
    config_yaml: str,
    fingerprint: str,
    overrides: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> PreviewedRun:
    """The new run that `freeze` would make at `root`; nothing is written.

    Raises:
        ConfigError: the directory holds something that is not a run, or jobs cannot work in it.
    """
    place = root.resolve()
    require_plain_path(place)
    if place.exists() and any(not _is_half_made(path) for path in place.iterdir()):
        raise ConfigError(f"{root} is not empty and not a run; use a new directory")
    described = {
        "schema": RUN_SCHEMA,
        "name": place.name,
        "created": now(),
        "user": os.environ.get("USER", str(os.getuid())),
        "host": platform.node(),
        "python": platform.python_version(),
        "fingerprint": fingerprint,
        **(facts or {}),
    }
    return PreviewedRun(place, config_yaml, described, tuple(overrides))


def freeze(run: RunDir) -> RunDir:
    """The run on disk: made now if it was only previewed, private by default (mode 0700).

    Of a run that is there already the configuration is replaced; of one that has begun only by
    another with the same fingerprint.

    Raises:
        FingerprintMismatchError: the run has begun meanwhile.
    """
    if not isinstance(run, PreviewedRun):
        return run
    made = RunDir(run.root)
    if made.frozen and made.info["fingerprint"] == run.facts["fingerprint"]:
        publish_text(made.config_file, run.text)
        return made
    if made.frozen and made.begun:
        raise FingerprintMismatchError(
            f"{run.root} began meanwhile with configuration {made.info['fingerprint']}; name "
            "another run directory, or leave the overrides out"
        )
    made.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(made.root, 0o700)
    publish_text(made.config_file, run.text)
    publish_text(made.root / "overrides.txt", "".join(f"{word}\n" for word in run.overrides))
    publish_json(made.root / "run.json", run.facts)
    return made


def _is_half_made(path: Path) -> bool:
    """Whether `path` may be left from a `create_run` that was killed before its last step."""
    return path.name in ("config.yaml", "overrides.txt") or path.match(".*.tmp")


def open_run(root: Path) -> RunDir:
    """The existing run at `root`.

    Raises:
        ConfigError: there is none.
    """
    run = RunDir(root.resolve())
    if not run.frozen:
        raise ConfigError(
            f"{root} is not a run directory; make one with `sarhpc init {quoted(root)}`"
        )
    return run
