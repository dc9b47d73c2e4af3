"""The verb `view`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from sarhpc.viewer.run_pages import RunPages

QUEUE_S = 30.0
"""Age up to which the status of a run on a cluster is shown again, s."""
TILES = 256


def add_view(verbs: Verbs) -> None:
    """Add `view`."""
    view = add_verb(verbs, "view", "show status, report, grids and shards of a run in a browser")
    view.add_argument("run", help="run directory")
    view.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    view.set_defaults(handler=view_verb)


def view_verb(arguments: argparse.Namespace) -> int:
    """Serve the pages of the run until Ctrl-C, and print their address."""
    from sarhpc.viewer.access import registered, served_address
    from sarhpc.viewer.server import listen, serve_until_interrupted

    if not 0 <= arguments.port <= 65535:
        raise ConfigError(
            f"--port {arguments.port}: give 1 to 65535, or leave it out for a free one"
        )
    run = open_run(Path(arguments.run).resolve())
    pages = pages_of(run)
    known = served_address(run.root)
    if known is not None and arguments.port in (0, known.port):
        print(f"{run.root} is served by process {known.server.pid}\n  {known.url}")
        return 0
    try:
        sockets = listen(arguments.port)
    except OSError as error:
        hint = "leave it out for a free one"
        raise ConfigError(f"--port {arguments.port}: {error}; {hint}") from error
    port = sockets[0].getsockname()[1]
    with registered(run.root, port) as address:
        print(f"{run.root}, for this user alone, until Ctrl-C:\n  {address.url}")
        tunnel = f"ssh -L {port}:127.0.0.1:{port} {os.uname().nodename}"
        print(f"from another machine first: {tunnel}", flush=True)
        serve_until_interrupted(pages, address, sockets)
    return 0


def pages_of(run: RunDir) -> RunPages:
    """What is shown of a run."""
    from hpc.observe.status import run_status
    from hpc.store.submissions import read_submissions
    from sarhpc.cli.inspection import inspect_path
    from sarhpc.training.denoising.grids import read_index
    from sarhpc.training.judged import FOLDER
    from sarhpc.viewer.run_pages import RunPages

    def inspection() -> str:
        """The page that `sarhpc inspect` writes."""
        from sarhpc.evaluation.inspection import render_inspection

        return render_inspection(inspect_path(run.root, TILES))

    stages = line_of_stages(load_run_config(run))
    grids = run.stage("train") / FOLDER
    return RunPages(
        root=run.root,
        read_status=lambda: run_status(run, stages),
        read_grids=lambda: read_index(grids),
        grids=grids,
        render_inspection=inspection,
        status_s=QUEUE_S if read_submissions(run) else 2.0,
    )
