"""Runs from Python: the verbs `init`, `run`, `status` and `resume`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.documents import read_json
from hpc.errors import HpcError
from hpc.shell import quoted
from hpc.store.rundir import RunDir, open_run
from sarhpc.api.settings import Settings, overrides
from sarhpc.cli.configuration import drafted_run, given_config, previewed_run
from sarhpc.cli.own_run import acted_on
from sarhpc.cli.running import resume_verb, run_verb, submission_options
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.templates import template as shipped

if TYPE_CHECKING:
    from hpc.observe.status import RunStatus


@dataclass(frozen=True)
class Results:
    """What a run has made so far; None for what is not finished."""

    tiles: Path | None
    """Folder of the tile shards, one below it for each split."""
    samples: Path | None
    """Folder of the captioned shards, likewise."""
    model: Path | None
    """The exported model, a diffusers folder."""
    corpus: Path | None
    """Folder of the synthetic shards with their index and card."""
    report: Path | None
    """The HTML page."""
    evaluation: dict[str, Any] | None
    """Distances, nulls and gates, as in `evaluation.json`."""


class Run:
    """One run directory: its configuration, its jobs, its results."""

    def __init__(self, root: str | Path) -> None:
        """Open an existing run.

        Raises:
            ConfigError: there is none.
        """
        self._run = open_run(Path(root))

    def __repr__(self) -> str:
        return f"Run({str(self.root)!r})"

    @classmethod
    def create(
        cls,
        root: str | Path,
        template: str | None = None,
        *,
        config: str | Path | None = None,
        settings: Settings | None = None,
    ) -> Run:
        """The run at `root`, made with this configuration, or changed to it before it begins.

        Args:
            root: run directory.
            template: a configuration that ships, such as `demo` or `paper_sd15`.
            config: a YAML file instead.
            settings: values that differ, such as `{"train.max_steps": 500}`.

        Raises:
            ConfigError: an unknown key, a wrong value, or both a template and a file.
            FingerprintMismatchError: the run has begun with other values.
        """
        if template is not None and config is not None:
            raise TypeError("give either a template or a file")
        file = shipped(template) if template is not None else config
        return cls(acted_on(drafted_run(*_words(root, file, settings))).root)

    @property
    def root(self) -> Path:
        """The run directory."""
        return self._run.root

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return load_run_config(self._run)

    def submit(
        self,
        *,
        profile: str | None = None,
        executor: str | None = None,
        first: str | None = None,
        until: str | None = None,
        wait: bool = False,
        force: bool = False,
    ) -> RunStatus:
        """Start the stages that are not done, as `sarhpc run`; its status then.

        Args:
            profile: the cluster, a name or a YAML file; None takes that of the configuration.
            executor: `slurm`, `local` or `debug` (in this process).
            first: stage to begin with.
            until: stage to end with.
            wait: whether to return when the work has ended.
            force: whether to try again after a crash loop.

        Raises:
            ConfigError: something is missing or set wrong; nothing was started.
            HpcError: with `wait`, a job failed.
        """
        options = submission_options(profile=profile, executor=executor, wait=wait, force=force)
        vars(options).update(config=None, overrides=[], cfg=False, first=first, last=until)
        return self._carried_out(run_verb, options)

    def resume(
        self,
        *,
        profile: str | None = None,
        executor: str | None = None,
        wait: bool = False,
        force: bool = False,
    ) -> RunStatus:
        """Continue after a stop, a failure or a lost job, as `sarhpc resume`; its status then.

        Raises:
            ConfigError: something is missing; nothing was started.
            HpcError: with `wait`, a job failed.
        """
        options = submission_options(profile=profile, executor=executor, wait=wait, force=force)
        return self._carried_out(resume_verb, options)

    def _carried_out(self, verb: Any, options: argparse.Namespace) -> RunStatus:
        options.run = str(self.root)
        code = verb(options)
        if code != 0:
            raise HpcError(
                f"{self.root} ended with exit code {code}; see sarhpc logs {quoted(self.root)}"
            )
        return self.status()

    def status(self) -> RunStatus:
        """The state of every stage, from disk, queue and accounting."""
        from hpc.observe.status import run_status

        return run_status(self._run, line_of_stages(self.config))

    def results(self) -> Results:
        """What the sealed stages have made."""
        data, config = data_root(self._run, self.config), self.config

        def made(stage: str, path: Path) -> Path | None:
            return path if self._run.ledger(stage).sealed else None

        evaluation = made("evaluate", self._run.stage("evaluate") / "evaluation.json")
        return Results(
            tiles=made("tile", data / "tiles"),
            samples=made("caption", data / "samples"),
            model=made("export", self._run.stage("export") / "model"),
            corpus=made("generate", data / "synthetic") if config.generate else None,
            report=made("evaluate", self.root / "report.html"),
            evaluation=None if evaluation is None else read_json(evaluation),
        )


def run_and_config(
    root: str | Path, file: str | Path | None, settings: Settings | None
) -> tuple[RunDir, RunConfig]:
    """The run that `Run.create` would make or change, and its configuration; nothing is written.

    Raises:
        ConfigError: an unknown key or a wrong value.
        FingerprintMismatchError: the run has begun with other values.
    """
    arguments, config = _words(root, file, settings)
    return previewed_run(arguments, config), config


def _words(
    root: str | Path, file: str | Path | None, settings: Settings | None
) -> tuple[argparse.Namespace, RunConfig]:
    """The arguments that a command line would have, and the configuration they mean."""
    arguments = argparse.Namespace(
        run=str(root),
        config=None if file is None else str(file),
        overrides=overrides(settings),
        cfg=False,
    )
    return arguments, given_config(arguments)
