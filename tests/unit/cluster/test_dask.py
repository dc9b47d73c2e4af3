"""Shards on a real Dask cluster: who may connect, what a dying worker costs."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from hpc.cluster.certificate import issue_credentials
from hpc.cluster.dask import _security, connect, dask_cluster
from hpc.cluster.dask_shards import run_shards
from hpc.errors import DataError, TransientError

pytestmark = [pytest.mark.slow, pytest.mark.starts_workers]


@dataclass(frozen=True)
class Shard:
    id: str
    marks: Path
    deaths: int = 0
    """How many of its first runs kill their worker."""


def mark(shard: Shard) -> int:
    """Note one more run of this shard; how many there were before."""
    before = len(list(shard.marks.glob(f"{shard.id}-*")))
    (shard.marks / f"{shard.id}-{before}").touch()
    return before


def make(shard: Shard) -> str:
    if mark(shard) < shard.deaths:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return f"made {shard.id}"


def fail_on_odd(shard: Shard) -> str:
    if int(shard.id) % 2:
        raise DataError(f"scene of shard {shard.id} is corrupt")
    return shard.id


def signal_own_worker(shard: Shard) -> str:
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    return shard.id


def sleep_long(shard: Shard) -> str:
    mark(shard)
    time.sleep(60)
    return shard.id


def count_page_faults(shard: Shard) -> int:
    """Pages that forty arrays of 8 MB, one after the other, took fresh from the system."""
    bytearray(8 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        bytearray(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "dask"


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Client]:
    with dask_cluster(home, workers=2) as client:
        yield client


def runs(shards: list[Shard]) -> dict[str, int]:
    return {shard.id: len(list(shard.marks.glob(f"{shard.id}-*"))) for shard in shards}


def shards(tmp_path: Path, count: int, **deaths: int) -> list[Shard]:
    ids = [f"{number:06d}" for number in range(count)]
    return [Shard(id, tmp_path, deaths.get(f"s{int(id)}", 0)) for id in ids]


def test_every_shard_is_yielded_once(client: Client, tmp_path: Path) -> None:
    todo = shards(tmp_path, 7)
    done = {
        shard.id: result for shard, result in run_shards(client, make, todo, window=4, retries=0)
    }
    assert done == {shard.id: f"made {shard.id}" for shard in todo}
    assert set(runs(todo).values()) == {1}


def test_a_killed_worker_costs_only_its_own_shard_one_more_run(
    client: Client, tmp_path: Path
) -> None:
    todo = shards(tmp_path, 8, s2=1)
    done = {
        shard.id: result for shard, result in run_shards(client, make, todo, window=8, retries=2)
    }
    assert done == {shard.id: f"made {shard.id}" for shard in todo}
    assert runs(todo) == {shard.id: 1 + shard.deaths for shard in todo}


def test_a_shard_that_always_kills_its_worker_is_given_up(client: Client, tmp_path: Path) -> None:
    todo = shards(tmp_path, 3, s1=99)
    done = {
        shard.id: result for shard, result in run_shards(client, make, todo, window=3, retries=1)
    }
    assert isinstance(done["000001"], TransientError)
    assert "died 2 times" in str(done["000001"])
    assert runs(todo) == {"000000": 1, "000001": 2, "000002": 1}


def test_an_exception_is_yielded_and_the_rest_goes_on(client: Client, tmp_path: Path) -> None:
    todo = shards(tmp_path, 4)
    done = {
        shard.id: result
        for shard, result in run_shards(client, fail_on_odd, todo, window=2, retries=3)
    }
    assert [done["000000"], done["000002"]] == ["000000", "000002"]
    for id in ("000001", "000003"):
        assert isinstance(done[id], DataError)
        assert f"shard {id} is corrupt" in str(done[id])


def test_tasks_are_read_only_as_they_are_needed(client: Client, tmp_path: Path) -> None:
    read: list[str] = []

    def tasks() -> Iterator[Shard]:
        for shard in shards(tmp_path, 9):
            read.append(shard.id)
            yield shard

    results = run_shards(client, make, tasks(), window=2, retries=0)
    done = {next(results)[0].id}
    assert len(read) <= 4
    assert done | {shard.id for shard, _ in results} == set(read)
    assert len(read) == 9


def test_leaving_early_cancels_the_rest(client: Client, tmp_path: Path) -> None:
    todo = shards(tmp_path, 40)
    for _ in run_shards(client, make, todo, window=2, retries=0):
        break
    time.sleep(0.5)
    assert sum(runs(todo).values()) <= 5


def test_workers_survive_the_signals_of_their_job(client: Client, tmp_path: Path) -> None:
    (todo,) = shards(tmp_path, 1)
    ((_, result),) = run_shards(client, signal_own_worker, [todo], window=1, retries=0)
    assert result == todo.id


def test_the_clusters_files_are_private(client: Client, home: Path) -> None:
    files = list(home.iterdir())
    assert {path.name.partition("-")[0] for path in files} == {
        "scheduler",
        "ca",
        "certificate",
        "key",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_workers_keep_their_files_where_nobody_else_writes(client: Client) -> None:
    """Dask's own folder, of a fixed name in /tmp, may have been made by another user."""
    for used in client.run(lambda dask_worker: dask_worker.local_directory).values():
        private = next(path for path in Path(used).parents if path.name.startswith("sarhpc-dask-"))
        assert private.stat().st_uid == os.geteuid()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_nothing_listens_beyond_loopback(client: Client) -> None:
    here = psutil.Process()
    processes = [here, *here.children(recursive=True)]
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.ip for address in listening} == {"127.0.0.1"}


def scheduler_file(home: Path) -> Path:
    (path,) = home.glob("scheduler-*.json")
    return path


def test_the_scheduler_file_lets_its_owner_in(client: Client, home: Path) -> None:
    with connect(scheduler_file(home)) as second:
        assert second.submit(sum, (1, 2, 3), pure=False).result() == 6


def test_without_tls_nobody_gets_in(client: Client) -> None:
    address = client.scheduler.address.replace("tls://", "tcp://")
    with pytest.raises(OSError, match=r"reset by peer|[Tt]imed out"):
        Client(address, timeout=2)


def test_with_another_clusters_certificates_nobody_gets_in(client: Client, tmp_path: Path) -> None:
    foreign = _security(issue_credentials(tmp_path, "foreign"))
    with pytest.raises(OSError, match="TLS certificate does not match"):
        Client(client.scheduler.address, security=foreign, timeout=2)


def test_with_the_right_authority_but_no_certificate_nobody_gets_in(
    client: Client, home: Path
) -> None:
    import socket
    import ssl

    host, port = client.scheduler.address.removeprefix("tls://").split(":")
    (ca,) = home.glob("ca-*.pem")
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate"),
        context.wrap_socket(plain, server_hostname=host) as run_check,
    ):
        # Under TLS 1.3 the refusal arrives with the first byte read.
        run_check.recv(1)


def test_a_cluster_leaves_no_credentials_behind(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", workers=1):
        file = scheduler_file(tmp_path / "dask")
        assert file.exists()
    assert list((tmp_path / "dask").iterdir()) == []
    with pytest.raises(TransientError, match="as long as its job"):
        connect(file, timeout_s=1)


OWNER = """
import sys
from pathlib import Path
from test_dask import Shard, sleep_long
from hpc.cluster.dask import dask_cluster
from hpc.cluster.dask_shards import run_shards

if __name__ == "__main__":
    here = Path(sys.argv[1])
    with dask_cluster(here / "dask", workers=2) as client:
        shards = [Shard(f"{n:06d}", here) for n in range(4)]
        for _ in run_shards(client, sleep_long, shards, window=4, retries=0):
            pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_owner(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    owner: Any = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stderr=subprocess.DEVNULL,
        # Where the tests run in the background of a shell, SIGINT is ignored and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*-0"))) < 2:
        assert owner.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    family = psutil.Process(owner.pid).children(recursive=True)
    assert family
    owner.send_signal(number)
    owner.wait(30)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    if number == signal.SIGINT:
        assert list((tmp_path / "dask").iterdir()) == []


def test_a_worker_uses_its_memory_again(client: Client, tmp_path: Path) -> None:
    [(_, faults)] = run_shards(
        client, count_page_faults, [Shard("000000", tmp_path)], window=1, retries=0
    )
    pages = 40 * (8 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert isinstance(faults, int)
    assert faults < pages / 4


def test_a_cluster_that_does_its_work_says_nothing(tmp_path: Path, capfd) -> None:
    with dask_cluster(tmp_path / "dask", 1) as client:
        shards = run_shards(client, make, [Shard("0", tmp_path)], window=1, retries=0)
        assert [made for _, made in shards] == ["made 0"]
    assert capfd.readouterr() == ("", "")


def test_only_an_unexpected_error_of_a_shard_has_a_traceback_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with dask_cluster(tmp_path / "dask", 1) as client:
        for id in ("000001", "not a number"):
            [(_, outcome)] = run_shards(
                client, fail_on_odd, [Shard(id, tmp_path)], window=1, retries=0
            )
            assert isinstance(outcome, DataError | ValueError)
    logged = "".join(capfd.readouterr())
    assert "is corrupt" not in logged, "who distributes the shards logs it"
    assert "invalid literal for int()" in logged
    assert logged.count("Traceback") == 1
