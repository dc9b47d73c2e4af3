"""A run: one directory and one frozen configuration."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.documents import read_json
from hpc.errors import ConfigError, FingerprintMismatchError, VerificationError
from hpc.publish import publish_json, publish_text
from hpc.store.ledger import Ledger

RUN_SCHEMA = "sarhpc.run/1"


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

    def ledger(self, stage: str) -> Ledger:
        """Ledger of a stage."""
        return Ledger(self.stage(stage))

    def logs(self, stage: str) -> Path:
        """Directory of the logs of a stage, one file per job and task."""
        return self.stage(stage) / "logs"

    @property
    def info(self) -> dict[str, Any]:
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


def create_run(
    root: Path,
    config_yaml: str,
    fingerprint: str,
    overrides: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> RunDir:
    """A run directory with its configuration frozen; the existing one if it was made before.

    Private by default: mode 0700.

    Raises:
        ConfigError: the directory holds something that is not a run.
        FingerprintMismatchError: it is a run with another configuration.
    """
    run = RunDir(root.resolve())
    if (run.root / "run.json").exists():
        if run.info["fingerprint"] != fingerprint:
            raise FingerprintMismatchError(
                f"{root} is frozen with configuration {run.info['fingerprint']}, but "
                f"{fingerprint} was requested; a run never changes its configuration: use another "
                "directory"
            )
        return run
    if run.root.exists() and any(not _is_half_made(path) for path in run.root.iterdir()):
        raise ConfigError(f"{root} is not empty and not a run; use a new directory")
    run.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(run.root, 0o700)
    publish_text(run.config_file, config_yaml)
    publish_text(run.root / "overrides.txt", "".join(f"{word}\n" for word in overrides))
    publish_json(
        run.root / "run.json",
        {
            "schema": RUN_SCHEMA,
            "name": run.name,
            "created": now(),
            "user": os.environ.get("USER", str(os.getuid())),
            "host": platform.node(),
            "python": platform.python_version(),
            "fingerprint": fingerprint,
            **(facts or {}),
        },
    )
    return run


def _is_half_made(path: Path) -> bool:
    """Whether `path` may be left from a `create_run` that was killed before its last step."""
    return path.name in ("config.yaml", "overrides.txt") or path.match(".*.tmp")


def open_run(root: Path) -> RunDir:
    """The existing run at `root`.

    Raises:
        ConfigError: there is none.
    """
    run = RunDir(root.resolve())
    if not (run.root / "run.json").is_file():
        raise ConfigError(f"{root} is not a run directory; make one with `sarhpc init {root}`")
    return run
