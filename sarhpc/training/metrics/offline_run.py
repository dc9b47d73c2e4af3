"""The rows of metrics.jsonl as an offline run of Weights & Biases (W&B).

It is written in one go from the rows that count, when an attempt ends: it holds every step once
whatever attempts there were, and no process of W&B lives beside the training, where a signal to the
job would end it. Nothing is sent: `wandb sync` does that, where there is a network.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc.publish import publishing_directory
from sarhpc.training.metrics.tensorboard import tag_of

PROJECT = "sarhpc"


def write_offline_run(folder: Path, rows: Sequence[Mapping[str, Any]], name: str) -> Path:
    """Put a run of `rows` in the place of that in `folder`, with its identity; its directory.

    Raises:
        wandb.Error, OSError: W&B could not write it; the run that was there stays.
    """
    identity = _identity(folder)
    with publishing_directory(folder) as staging:
        work = staging / "work"
        work.mkdir()
        directory = _write(work, identity, rows, name)
        for part in ("logs", "tmp"):
            shutil.rmtree(directory / part, ignore_errors=True)
        directory.rename(staging / directory.name)
        shutil.rmtree(work)
    return folder / directory.name


def _identity(folder: Path) -> str:
    """That of the run in `folder`, so that a server knows it again; a new one without any."""
    for path in folder.glob("offline-run-*/run-*.wandb"):
        return path.stem.removeprefix("run-")
    return secrets.token_hex(4)


def _write(work: Path, identity: str, rows: Sequence[Mapping[str, Any]], name: str) -> Path:
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        quiet=True,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    logging.getLogger("wandb").setLevel(logging.WARNING)
    with _own_cache(work):
        run = wandb.init(
            project=PROJECT, id=identity, name=name, dir=work, mode="offline", settings=settings
        )
        try:
            for row in rows:
                run.log(_values(row), step=row["step"])
        finally:
            run.finish()
            wandb.teardown()
    return Path(run.dir).parent


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """W&B's process leaves a log in its cache, which is in the home directory otherwise."""
    before = os.environ.get("WANDB_CACHE_DIR")
    os.environ["WANDB_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WANDB_CACHE_DIR"]
        if before is not None:
            os.environ["WANDB_CACHE_DIR"] = before


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row under the names TensorBoard shows them by, at the time of the row."""
    numbers = {
        tag_of(name): value
        for name, value in row.items()
        if name not in ("step", "time") and isinstance(value, int | float)
    }
    return {**numbers, "_timestamp": row["time"]}
