"""Who connects to the ports of a training reads nothing, runs nothing and changes nothing."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import server
from training_ranks import (
    Job,
    contents,
    differences,
    enter_rank,
    finish,
    start,
    start_engine,
    step_folder,
    tiny_config,
)

INTRUDER = """\
import json, os, select, socket, struct, sys
heard, held = {}, {}
def words(port):
    yield from (struct.pack("<q", number) for number in range(6))    # gloo: I am your pair
    yield bytes([0, 0x3C, 0x85, 0xF7, 0xCE, 0]) * 20                 # torch's store: may I join
    yield os.urandom(64)                                             # a code for another secret
    yield os.urandom(100_000)
    yield b""                                                        # silent and in the way
open_ = True
while open_ or held:
    ready, _, _ = select.select([*held, *([sys.stdin] if open_ else [])], [], [], 1.0)
    for end in ready:
        if end is sys.stdin:
            line = sys.stdin.readline()
            open_ = bool(line)
            for said in words(int(line)) if line else ():
                peer = socket.create_connection(("127.0.0.1", int(line)), 5)
                peer.setblocking(False)
                try:
                    peer.send(said)
                except OSError:
                    pass
                held[peer] = line.strip()
                heard.setdefault(line.strip(), [])
            continue
        try:
            got = end.recv(1 << 16)
        except OSError:
            got = b""
        if got:
            heard[held[end]].append(len(got))
        else:
            held.pop(end).strip()
    if not open_ and not ready:
        break
print(json.dumps(heard))
"""
"""Connects to every port named on its standard input; prints how much it heard of each."""

NONCE_BYTES = 32
"""What a rendezvous says to anybody: a random number."""
PROOF_BYTES = 64 + 32
"""What a rank sends to whom gloo took for its pair: gloo's header and a code that counts for this
one try. The group is dissolved then, before it carries anything else, and opened again."""


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports that a process listens on."""
    with suppress(psutil.Error):
        connections = psutil.Process(pid).net_connections("inet")
        return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == "LISTEN"}
    return set()


@contextmanager
def second_user(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The intruder, as a user without any rights here."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user: nobody tried to join the ranks")
    other = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
    # The interpreter of this environment may lie where only its owner can look.
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    with subprocess.Popen(
        [*become, python, "-I", "-c", INTRUDER],
        cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_second_user_at_every_port_of_a_starting_training_changes_no_bit(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    calm, visited = (
        Job(tiny_bundle, tmp_path / name, tiny_config(max_steps=3)) for name in ("calm", "visited")
    )
    begin = time.monotonic()
    assert finish(start(calm)) == [0, 0]
    undisturbed_s = time.monotonic() - begin

    begin = time.monotonic()
    with second_user(tmp_path) as intruder:
        assert intruder.stdin is not None
        assert intruder.stdout is not None
        ranks, seen = start(visited), set()
        while any(rank.is_alive() for rank in ranks):
            for rank in ranks:
                assert rank.pid is not None
                for address, port in listening(rank.pid) - seen:
                    seen.add((address, port))
                    intruder.stdin.write(f"{port}\n")
                    intruder.stdin.flush()
            time.sleep(0.001)
        assert finish(ranks) == [0, 0]
        disturbed_s = time.monotonic() - begin
        heard = json.loads(intruder.communicate(timeout=60)[0])
    assert len(seen) >= 3, "a rendezvous and two ranks listen"
    assert {address for address, _ in seen} == {"127.0.0.1"}
    assert len(heard) == len(seen)
    assert {count for counts in heard.values() for count in counts} <= {NONCE_BYTES, PROOF_BYTES}
    assert disturbed_s < undisturbed_s + 60
    one, two = contents(step_folder(calm, 3)), contents(step_folder(visited, 3))
    assert differences(one, two) == []


def opened(folder: Path, rank: int, port: int) -> None:
    """A rank that comes late to the opening of its group, once."""
    import torch.distributed as distributed

    from hpc.cluster import process_group
    from hpc.job.agreement import TorchRankGroup, close_ranks, open_group, open_ranks

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    process_group._PROVE_S = 3.0
    open_now, late = distributed.init_process_group, [2.0 * rank]

    def open_late(*arguments: Any, **words: Any) -> None:
        time.sleep(late.pop() if late else 0.0)
        open_now(*arguments, **words)

    distributed.init_process_group = open_late
    open_ranks("gloo", b"k" * 32)
    ranks = TorchRankGroup()
    inner = open_group([0, 1])
    distributed.barrier(group=inner)
    said = ranks.gather(f"rank {rank}")
    close_ranks()
    (folder / f"{rank}.json").write_text(json.dumps(said))


def engines(job: Job, rank: int, world: int, port: int) -> None:
    """Start an engine of each stage, and count the groups that were not proved."""
    from torch.distributed.distributed_c10d import _world

    from hpc.job import agreement
    from sarhpc.diffusion.bundle import load_bundle
    from sarhpc.training.denoising.model import Denoiser
    from sarhpc.training.ranks import join, leave

    enter_rank(job, rank, world, port)
    ranks = join(1, deterministic=True, seed=0)
    for stage in (0, 1, 2, 3):
        bundle = load_bundle(job.base)
        cfg = tiny_config(zero_stage=stage)
        engine, _ = start_engine(cfg, Denoiser(bundle.family, bundle.models), ranks, 1)
        engine.destroy()
    session = agreement._session
    assert session is not None
    assert len(_world.pg_map) == session._opened >= 2
    leave()


@pytest.mark.slow
def test_no_group_of_deepspeed_is_opened_without_proof(tiny_bundle: Path, tmp_path: Path) -> None:
    job = Job(tiny_bundle, tmp_path, tiny_config())
    assert finish(start(job, 2, engines)) == [0, 0]


def join_in_place_of_rank_1(rank_0: BaseProcess) -> list[socket.socket]:
    """Connections to rank 0 as gloo would make them, once it listens for rank 1."""
    assert rank_0.pid is not None
    until, mine, tried = time.monotonic() + 60, [], set()
    while rank_0.is_alive() and time.monotonic() < until and len(tried) < 2:
        for _, port in listening(rank_0.pid) - tried:
            tried.add((_, port))
            for number in range(4):
                with suppress(OSError):
                    mine.append(socket.create_connection(("127.0.0.1", port), 5))
                    mine[-1].sendall(struct.pack("<q", number))
        time.sleep(0.005)
    return mine


def test_who_takes_the_place_of_a_rank_is_found_out_before_anything_is_exchanged(
    tmp_path: Path,
) -> None:
    ranks = [
        server().Process(target=opened, args=(tmp_path, rank, 20000 + os.getpid() % 10000))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    intruders = join_in_place_of_rank_1(ranks[0])
    assert finish(ranks, 60) == [0, 0]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == ["rank 0", "rank 1"]
    for intruder in intruders:
        intruder.setblocking(False)
        with suppress(OSError):
            # Of the group that was given up, it can at most have the proof meant for rank 1.
            assert len(intruder.recv(1 << 16)) < 256
        intruder.close()
