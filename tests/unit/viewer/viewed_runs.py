"""A run whose every text is hostile, and a server of its pages."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from line_runs import tiny_run

from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.cli.view import pages_of
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.viewer.access import Address, registered
from sarhpc.viewer.server import listen, serve

OWNED = "document.documentElement.dataset.owned=1"
HOSTILE = f'<img src=x onerror="{OWNED}"><script>{OWNED}</script>'
"""Text that leaves a mark in the page that takes it for more than text."""
NAME = f"{HOSTILE.replace('/', chr(0x2215))}' \" & run"
"""A file name cannot have a slash."""


def hostile_run(folder: Path) -> RunDir:
    """A run with captioned shards, validation grids and a report by somebody who means no good."""
    run = tiny_run(folder / NAME, folder / "model")
    _seal_captions(run)
    grids = run.stage("train") / "validation"
    images = []
    for step in (0, 2):
        name = f"step_{step:08d}/p00_s0.png"
        (grids / name).parent.mkdir(parents=True)
        (grids / name).write_bytes(encode_gray8(np.full((8, 8), 90, np.uint8)))
        images.append({"step": step, "epoch": 0, "prompt": HOSTILE, "seed": 0, "path": name})
    secret = folder / "secret.png"
    secret.write_bytes(encode_gray8(np.zeros((8, 8), np.uint8)))
    (grids / "step_00000002" / "link.png").symlink_to(secret)
    (grids / "step_00000002" / "text.png").write_text("no picture")
    (grids / "step_00000009").symlink_to(folder)
    for odd in ("step_00000002/link.png", "step_00000002/text.png", "../../../secret.png",
                "step_00000009/secret.png", str(secret)):  # fmt: skip
        images.append({"step": 2, "epoch": 0, "prompt": "odd", "seed": 0, "path": odd})
    (grids / "index.json").write_text(json.dumps({"images": images, "judged": []}))
    (run.root / "report.html").write_text(f"<!doctype html><p id=r>report</p>{HOSTILE}")
    return run


def _seal_captions(run: RunDir) -> None:
    plan = make_plan("caption", [{"n": 0}])
    publish_plan(plan, run.plan_file("caption"))
    rng = np.random.default_rng(0)
    path = run.root / "data" / "samples" / "val" / "000000.tar"
    samples = [
        Sample(
            sample_key(0, index),
            {
                "sar.png": encode_gray8(rng.integers(0, 256, (32, 32), np.uint8)),
                "txt": HOSTILE.encode(),
                "meta.json": encode_json({"caption": {"SHORT": HOSTILE}, "scene_id": HOSTILE}),
            },
        )
        for index in range(2)
    ]
    made = write_shard(path, samples)
    record = Record("000000", plan.id, str(path), 2, made.bytes, made.sha256, 0, HOSTILE,
                    now(), now(), 1.0, {}, {"split": "val"})  # fmt: skip
    run.ledger("caption").publish(record)
    run.ledger("caption").seal(plan)


@contextmanager
def served(run: RunDir) -> Iterator[Address]:
    """The pages of the run, served from a thread."""
    sockets = listen()
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    with registered(run.root, sockets[0].getsockname()[1]) as address:
        work = serve(pages_of(run), address, sockets, ended)
        thread = threading.Thread(target=loop.run_until_complete, args=(work,))
        thread.start()
        try:
            yield address
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()


def ask(
    address: Address, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request, as it is written here."""
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    with connection.getresponse() as answer:
        return answer.status, dict(answer.getheaders()), answer.read()
