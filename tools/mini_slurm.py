"""A real Slurm cluster on this machine, for development and tests: up in three seconds.

    python tools/mini_slurm.py start [ROOT] [--nodes 4] [--cpus 4] [--gpus 2] [--port 0] ...
    python tools/mini_slurm.py status [ROOT]      # daemons, nodes, queue
    python tools/mini_slurm.py shell [ROOT]       # a shell that submits there
    python tools/mini_slurm.py stop [ROOT]

One slurmctld, several slurmd, munged, slurmdbd on MariaDB (so `sacct` answers), fake GPUs, and the
partitions main, low (preempted after a grace time), scavenge (preempted at once) and high. State,
logs, sockets and pid files are under ROOT; clusters with different roots can run side by side.
Needs Debian's packages (`make slurm-setup`), neither systemd nor cgroups, and no root.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from mini_slurm_files import ClusterSpec, free_port_base, write_configuration
from mini_slurm_processes import end, find_daemon, find_job_processes, kill, wait_until
from mini_slurm_user import SYSTEM_PATH, USABLE, ClusterError, ClusterUser

COMMANDS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch", "sacct", "unshare")
MYSQL_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")


def missing_commands() -> list[str]:
    """Commands that must be installed before a cluster can start; empty if all are."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    absent = [name for name in COMMANDS if shutil.which(name, path=path) is None]
    return absent + ([] if MYSQL_TABLES.exists() else [str(MYSQL_TABLES)])


class MiniSlurm(ClusterUser):
    """A cluster under `root`: start it, inject faults, heal and stop it."""

    def __init__(self, root: Path, spec: ClusterSpec | None = None) -> None:
        self.root = root.resolve()
        self.spec = spec or _remembered_spec(self.root)
        super().__init__(self.root / "slurm.conf", self.spec.node_names)

    def start(self, timeout_s: float = 60) -> MiniSlurm:
        """Every daemon runs and every node is idle; a failed start leaves nothing behind.

        Raises:
            ClusterError: A package is missing, or a daemon did not come up.
        """
        absent = missing_commands()
        if absent:
            raise ClusterError(f"no {', '.join(absent)} on this machine: run `make slurm-setup`")
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)  # munged is another user
        try:
            with _one_start_at_a_time():
                self._settle()
                self._start_munge()
                if self.spec.accounting:
                    self._start_accounting()
                self._spawn("slurmctld", "-f", str(self.conf))
                for node in self.nodes:
                    self.start_node(node)
            self.wait_idle(timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout_s: float = 15) -> list[str]:
        """Nothing of the cluster runs any more; names what had to be killed.

        The order matters: a slurmd that cannot report the end of a job hangs at exit, and slurmdbd
        needs munged for its last messages.
        """
        if self.daemon("slurmctld"):
            self.thaw_controller()
            self._drop_jobs(wait_s=3)
        killed = self._kill_jobs()
        slurmds = [f"slurmd.{node}" for node in self.nodes]
        for group in (slurmds, ["slurmctld"], ["slurmdbd"], ["mariadbd"], ["munged"]):
            living = [found for name in group if (found := self.daemon(name))]
            killed += end(living, timeout_s)
        return killed

    def heal(self, timeout_s: float = 180) -> None:
        """No jobs, every daemon back, every node idle: as after `start`."""
        self.thaw_controller()
        self.start_controller(timeout_s)
        self._drop_jobs(wait_s=15)
        self._kill_jobs()
        for node in self.nodes:
            if self.daemon(f"slurmd.{node}") is None:
                self.start_node(node)
        states = self.node_states()
        for node in self.nodes:
            if states.get(node) not in USABLE:
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        self.wait_idle(timeout_s=timeout_s)

    def start_node(self, node: str) -> None:
        """One slurmd, with a host name of its own where the system allows it."""
        command = ["slurmd", "-N", node, "-f", str(self.conf)]
        if self.spec.isolate == "uts":
            named = f"hostname {node} && mount --bind '{self.root}/hosts' /etc/hosts"
            command = [
                *_unshare("--propagation", "private"),
                f'{named} && exec "$@"',
                "sh",
                *command,
            ]
        self._spawn(*command)

    def crash_node(self, node: str) -> None:
        """SIGKILL for slurmd, its step daemons and their tasks, as in a power failure.

        Slurm reports NODE_FAIL after about half a minute.
        """
        if slurmd := self.daemon(f"slurmd.{node}"):
            slurmd.kill()
        self._kill_jobs(node)

    def restart_node(self, node: str, timeout_s: float = 60) -> None:
        """The node takes jobs again after `crash_node`."""
        if self.daemon(f"slurmd.{node}") is None:
            self.start_node(node)
        self.wait_idle([node], timeout_s=timeout_s)

    def down_node(self, node: str, reason: str = "test") -> None:
        """The node is down at once and its jobs are requeued as after a crash."""
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", f"Reason={reason}")

    def resume_node(self, node: str, timeout_s: float = 60) -> None:
        """The node takes jobs again after `down_node`."""
        self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.wait_idle([node], timeout_s=timeout_s)

    def stop_controller(self, hard: bool = False) -> None:
        """Clients get "Unable to contact slurm controller"; jobs keep running.

        With `hard` (SIGKILL) jobs of the last five seconds may be lost: it had not saved them yet.
        """
        if process := self.daemon("slurmctld"):
            if hard:
                kill([process])
            else:
                end([process], 15)

    def start_controller(self, timeout_s: float = 60) -> None:
        """The controller answers, with the state it had."""
        if self.daemon("slurmctld") is None:
            self._spawn("slurmctld", "-f", str(self.conf))
        wait_until(lambda: not self.run("sinfo", "-h", check=False).returncode, timeout_s)

    def freeze_controller(self) -> None:
        """The controller accepts connections and never answers, as when it is overloaded."""
        if process := self.daemon("slurmctld"):
            process.suspend()

    def thaw_controller(self) -> None:
        """The controller answers again after `freeze_controller`."""
        if process := self.daemon("slurmctld"):
            process.resume()

    def daemon(self, name: str) -> psutil.Process | None:
        """The living process of `slurmctld`, `slurmd.n1`, `slurmdbd`, `mariadbd` or `munged`."""
        file = {"munged": "munge/munge.pid", "mariadbd": "db/my.pid"}.get(name, f"run/{name}.pid")
        return find_daemon(self.root / file, self.root)

    def job_processes(self, node: str | None = None) -> list[psutil.Process]:
        """Step daemons, then tasks, of all jobs (of one node), also if reparented."""
        return find_job_processes(self.root, self.nodes if node is None else [node])

    def _settle(self) -> None:
        """Ports and isolation are fixed and the configuration is written."""
        spec = self.spec
        if spec.port == 0:
            spec = dataclasses.replace(spec, port=free_port_base(len(spec.ports)))
        if spec.isolate == "auto":
            tried = subprocess.run([*_unshare(), "hostname n1"], capture_output=True, check=False)
            spec = dataclasses.replace(spec, isolate="none" if tried.returncode else "uts")
        self.spec = spec
        (self.root / "cluster.json").write_text(json.dumps(dataclasses.asdict(spec), indent=1))
        write_configuration(spec, self.root)

    def _start_munge(self) -> None:
        """Munge refuses root, and its key must belong to the user that runs it."""
        folder = self.root / "munge"
        key = folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        folder.chmod(0o755)
        drop: list[str] = []
        if os.getuid() == 0:
            owner = pwd.getpwnam("munge")
            for path in (folder, key):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            drop = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"]
        files = {"key": "key-file", "socket": "socket", "pid": "pid-file", "log": "log-file"}
        options = [f"--{option}={folder}/munge.{name}" for name, option in files.items()]
        self._spawn(*drop, "munged", *options, f"--seed-file={folder}/munge.seed")

    def _start_accounting(self) -> None:
        """MariaDB without a user table of its own, on loopback only, then slurmdbd."""
        folder = self.root / "db"
        user = pwd.getpwuid(os.getuid()).pw_name
        small = "--innodb-buffer-pool-size=32M --innodb-log-file-size=8M --performance-schema=OFF"
        quick = "--innodb-flush-log-at-trx-commit=0 --skip-name-resolve"
        waits = "--innodb-lock-wait-timeout=900"
        server = ["mariadbd", "--no-defaults", f"--user={user}", f"--datadir={folder}/data"]
        server += f"{small} {quick} {waits}".split()
        if not (folder / "data" / "slurm_acct_db").exists():
            # mariadb-install-db needs the full server package; --bootstrap does not.
            head = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n"
            tables = f"{head}{MYSQL_TABLES.read_text()}\ncreate database slurm_acct_db;\n"
            self.run(*server, "--bootstrap", stdin=tables)
        listen = [f"--port={self.spec.database_port}", "--bind-address=127.0.0.1"]
        files = [f"--socket={folder}/my.sock", f"--pid-file={folder}/my.pid"]
        log = f"--log-error={folder}/my.err"
        self._spawn("setsid", "--fork", *server, *listen, *files, log, "--skip-grant-tables")
        wait_until(lambda: _listens(self.spec.database_port), 30)
        self._spawn("slurmdbd")
        wait_until(lambda: _listens(self.spec.accounting_port), 30)

    def _spawn(self, *command: str) -> None:
        """The daemon has put itself into the background."""
        out = self.root / "log" / "daemons.log"
        null = subprocess.DEVNULL
        with out.open("ab") as log:
            done = subprocess.run(
                command, env=self.env, stdin=null, stdout=log, stderr=log, check=False
            )
        if done.returncode:
            tail = out.read_text(errors="replace")[-2000:]
            raise ClusterError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")

    def _drop_jobs(self, wait_s: float) -> None:
        kill = ("--signal=KILL", "--full", "--state=RUNNING")
        for options in (kill, ("--state=PENDING",), ("--state=RUNNING",), ("--state=SUSPENDED",)):
            self.run("scancel", "--quiet", *options, check=False)
        with contextlib.suppress(TimeoutError):
            busy = ("squeue", "-h", "-t", "R,CG,S,PD")
            wait_until(lambda: not self.run(*busy, check=False).stdout.strip(), wait_s)

    def _kill_jobs(self, node: str | None = None) -> list[str]:
        """Kill until nothing is left, as a task may start another in between."""
        killed: list[str] = []
        while found := self.job_processes(node):
            killed += kill(found)
        return killed


def _remembered_spec(root: Path) -> ClusterSpec:
    file = root / "cluster.json"
    return ClusterSpec(**json.loads(file.read_text())) if file.exists() else ClusterSpec()


@contextlib.contextmanager
def _one_start_at_a_time() -> Iterator[None]:
    """Two starts at once would find the same ports free."""
    path = Path(tempfile.gettempdir()) / f"mini-slurm.{os.getuid()}.lock"
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unshare(*options: str) -> list[str]:
    """Command prefix for a shell script that runs with its own host name and mounts."""
    user = ["--user", "--map-current-user", "--keep-caps"] if os.getuid() else []
    return ["unshare", *user, "--uts", "--mount", *options, "sh", "-c"]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _show(cluster: MiniSlurm) -> None:
    for name in (
        "munged",
        "mariadbd",
        "slurmdbd",
        "slurmctld",
        *map("slurmd.{}".format, cluster.nodes),
    ):
        process = cluster.daemon(name)
        print(f"{name:12} {process.pid if process else 'not running'}")
    for command in ("sinfo", "squeue"):
        print(cluster.run(command, check=False).stdout, end="")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["start", "status", "shell", "stop", "guard"])
    default = Path(tempfile.gettempdir()) / "mini-slurm"
    parser.add_argument("root", nargs="?", type=Path, default=default)
    for field in dataclasses.fields(ClusterSpec):
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction, default=field.default
            )
        else:
            parser.add_argument(option, type=type(field.default), default=field.default)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one verb."""
    sizes = vars(_parse(argv))
    verb, root = sizes.pop("verb"), sizes.pop("root")
    cluster = MiniSlurm(root)
    if verb == "start":
        begun = time.monotonic()
        cluster.stop()
        cluster = MiniSlurm(root, ClusterSpec(**sizes)).start()
        print(f"{len(cluster.nodes)} nodes ready in {time.monotonic() - begun:.1f} s")
        print(f"export SLURM_CONF={cluster.conf}")
    elif verb == "status":
        _show(cluster)
    elif verb == "shell":
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.run([shell], env=cluster.env, check=False).returncode
    else:
        if verb == "guard":  # stdin ends with the process that holds its other end
            sys.stdin.read()
            cluster = MiniSlurm(root)
        print(f"stopped; killed: {', '.join(cluster.stop()) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
