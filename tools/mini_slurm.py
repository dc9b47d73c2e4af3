"""A real Slurm cluster on this machine, for development and tests: up in three seconds.

    python tools/mini_slurm.py start [ROOT] [--nodes 4] [--cpus 4] [--gpus 2] [--port 0]
    python tools/mini_slurm.py status [ROOT]      # daemons, nodes, queue
    python tools/mini_slurm.py shell [ROOT]       # a shell that submits there
    python tools/mini_slurm.py stop [ROOT]

One slurmctld, several slurmd, munged, slurmdbd on MariaDB (so `sacct` answers), fake GPUs, and the
partitions main, low (preempted after a grace time), scavenge (preempted at once) and high. State,
logs, sockets and pid files lie under ROOT; clusters with different roots live side by side. Needs
Debian's packages (`make slurm-setup`), neither systemd nor cgroups, and no root.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
from mini_slurm_files import ClusterSpec, free_port_base, write_configuration

COMMANDS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch", "sacct", "unshare")
MYSQL_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENDED = frozenset(
    "COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL PREEMPTED OUT_OF_MEMORY DEADLINE".split()
)
QUEUE_FIELDS = {
    "id": "%i", "name": "%j", "state": "%T", "reason": "%r", "partition": "%P", "nodes": "%N",
    "comment": "%k",
}  # fmt: skip
RECORD_FIELDS = "JobID,JobName,State,ExitCode,Start,End,ElapsedRaw,NodeList,AllocTRES,Comment"


class ClusterError(RuntimeError):
    """The mini cluster cannot start or a command in it failed; the text says which."""


def missing_commands() -> list[str]:
    """What must be installed before a cluster can start; empty where all is there."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    absent = [name for name in COMMANDS if shutil.which(name, path=path) is None]
    return absent + ([] if MYSQL_TABLES.exists() else [str(MYSQL_TABLES)])


class MiniSlurm:
    """A cluster under `root`: starts, is broken on purpose, is observed, and stops clean."""

    def __init__(self, root: Path, spec: ClusterSpec | None = None) -> None:
        self.root = root.resolve()
        self.spec = spec or _remembered_spec(self.root)

    @property
    def conf(self) -> Path:
        """The slurm.conf that names this cluster to every Slurm command."""
        return self.root / "slurm.conf"

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes."""
        return self.spec.node_names

    @property
    def env(self) -> dict[str, str]:
        """The environment of a user of this cluster, with this Python first on the path."""
        outer = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SUBMITIT_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(outer)}
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
        return kept | {"SLURM_CONF": str(self.conf), "PATH": path}

    # Life

    def start(self, timeout_s: float = 60) -> MiniSlurm:
        """Every daemon runs and every node is idle; a failed start leaves nothing behind."""
        absent = missing_commands()
        if absent:
            raise ClusterError(f"no {', '.join(absent)} on this machine: run `make slurm-setup`")
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        try:
            with _one_start_at_a_time():
                self._settle()
                self._start_munge()
                if self.spec.accounting:
                    self._start_accounting()
                self._run_daemon("slurmctld", "-f", str(self.conf))
                for node in self.nodes:
                    self.start_node(node)
            self.wait_idle(timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout_s: float = 15) -> list[str]:
        """Nothing of the cluster runs any more; says what had to be killed, daemons and all.

        The order matters: a slurmd that cannot report a job's end hangs on exit, and slurmdbd
        needs munged for its last words.
        """
        if self.daemon("slurmctld"):
            self.unfreeze_controller()
            self._drop_jobs(wait_s=3)
        hard = self._kill_processes()
        for names in (
            [f"slurmd.{node}" for node in self.nodes], ["slurmctld"], ["slurmdbd"], ["mariadbd"],
            ["munged"],
        ):  # fmt: skip
            hard += self._end([found for name in names if (found := self.daemon(name))], timeout_s)
        return hard

    def _settle(self) -> None:
        """Fix the ports, choose the isolation, write the configuration."""
        spec = self.spec
        if spec.port == 0:
            spec = dataclasses.replace(spec, port=free_port_base(len(spec.ports)))
        if spec.isolate == "auto":
            spec = dataclasses.replace(spec, isolate="uts" if _can_unshare() else "none")
        self.spec = spec
        (self.root / "cluster.json").write_text(json.dumps(dataclasses.asdict(spec), indent=1))
        write_configuration(spec, self.root)

    def _start_munge(self) -> None:
        """munged refuses root, and its key must belong to whoever runs it."""
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
        self._run_daemon(*drop, "munged", *options, f"--seed-file={folder}/munge.seed")

    def _start_accounting(self) -> None:
        """MariaDB without a user table of its own, on loopback only, then slurmdbd."""
        folder = self.root / "db"
        server = [
            "mariadbd", "--no-defaults", f"--user={pwd.getpwuid(os.getuid()).pw_name}",
            f"--datadir={folder}/data", "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0",
            "--performance-schema=OFF", "--skip-name-resolve", "--innodb-lock-wait-timeout=900",
        ]  # fmt: skip
        if not (folder / "data" / "slurm_acct_db").exists():
            # mariadb-install-db needs the full server package; --bootstrap does not.
            head = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n"
            tables = f"{head}{MYSQL_TABLES.read_text()}\ncreate database slurm_acct_db;\n"
            self.run(*server, "--bootstrap", stdin=tables)
        listen = [f"--port={self.spec.database_port}", "--bind-address=127.0.0.1"]
        files = [f"--socket={folder}/my.sock", f"--pid-file={folder}/my.pid"]
        log = f"--log-error={folder}/my.err"
        self._run_daemon("setsid", "--fork", *server, *listen, *files, log, "--skip-grant-tables")
        _wait_until(lambda: self.daemon("mariadbd") and _listens(self.spec.database_port), 30)
        self._run_daemon("slurmdbd")
        _wait_until(lambda: _listens(self.spec.accounting_port), 30)

    def _run_daemon(self, *words: str, node: str = "") -> None:
        out = self.root / "log" / "daemons.log"
        with out.open("ab") as log:
            env = self.env | ({"MINI_SLURM_NODE": node} if node else {})
            null = subprocess.DEVNULL
            done = subprocess.run(words, env=env, stdin=null, stdout=log, stderr=log, check=False)
        if done.returncode:
            tail = out.read_text(errors="replace")[-2000:]
            raise ClusterError(f"{words[0]} ended with {done.returncode}:\n{tail}")

    def daemon(self, name: str) -> psutil.Process | None:
        """The living process of `slurmctld`, `slurmd.n1`, `slurmdbd`, `mariadbd` or `munged`."""
        file = {"munged": "munge/munge.pid", "mariadbd": "db/my.pid"}.get(name, f"run/{name}.pid")
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((self.root / file).read_text()))
            ours = [*process.cmdline(), *process.environ().values()]
            if _alive(process) and any(str(self.root) in word for word in ours):
                return process
        return None

    def job_processes(self, node: str | None = None) -> list[psutil.Process]:
        """Step daemons and tasks of all jobs (of one node), wherever they were reparented to."""
        spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                env = process.environ()
                if process.pid in spared or env.get("SLURM_CONF") != str(self.conf):
                    continue
                step = process.name() == "slurmstepd" and env.get("MINI_SLURM_NODE", "")
                task = "SLURM_JOB_ID" in env and env.get("SLURMD_NODENAME", "")
                if (step or task) and node in (None, step, task):
                    found.append(process)
        return found

    def _kill_processes(self, node: str | None = None) -> list[str]:
        """A task may start another between two looks, so look until nothing is left."""
        killed: list[str] = []
        for _ in range(20):
            found = self.job_processes(node)
            if not found:
                break
            killed += self._end(found, 0)
        return killed

    def _end(self, processes: list[psutil.Process], patience_s: float) -> list[str]:
        """SIGTERM, and SIGKILL after `patience_s`; names those that were killed."""
        hard = []
        for process in processes if patience_s else []:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        end = time.monotonic() + patience_s
        while any(map(_alive, processes)) and time.monotonic() < end:
            time.sleep(0.02)
        for process in filter(_alive, processes):
            with contextlib.suppress(psutil.Error):
                hard.append(f"{process.name()} ({process.pid})")
                process.kill()
        with contextlib.suppress(TimeoutError):
            _wait_until(lambda: not any(map(_alive, processes)), 5)
        return hard

    def _drop_jobs(self, wait_s: float) -> None:
        kill = ("--signal=KILL", "--full", "--state=RUNNING")
        for options in (kill, ("--state=PENDING",), ("--state=RUNNING",), ("--state=SUSPENDED",)):
            self.run("scancel", "--quiet", *options, check=False)
        busy = ("squeue", "-h", "-t", "R,CG,S,PD")
        with contextlib.suppress(TimeoutError):
            _wait_until(lambda: not self.run(*busy, check=False).stdout.strip(), wait_s)

    # Faults

    def start_node(self, node: str) -> None:
        """One slurmd, with a host name of its own where the system allows it."""
        words = ["slurmd", "-N", node, "-f", str(self.conf)]
        if self.spec.isolate == "uts":
            hosts = f"mount --bind {self.root}/hosts /etc/hosts"
            script = f'hostname {node} && {hosts} && exec "$@"'
            user = ["--user", "--map-current-user", "--keep-caps"] if os.getuid() else []
            apart = ["--uts", "--mount", "--propagation", "private"]
            words = ["unshare", *user, *apart, "sh", "-c", script, "sh", *words]
        self._run_daemon(*words, node=node)

    def crash_node(self, node: str) -> None:
        """SIGKILL for slurmd, its step daemons and their tasks: as if the power went.

        Slurm says NODE_FAIL after about half a minute.
        """
        if slurmd := self.daemon(f"slurmd.{node}"):
            slurmd.kill()
        self._kill_processes(node)

    def restart_node(self, node: str, timeout_s: float = 60) -> None:
        """The node runs and takes jobs again after `crash_node`."""
        if self.daemon(f"slurmd.{node}") is None:
            self.start_node(node)
        self.wait_idle([node], timeout_s=timeout_s)

    def down_node(self, node: str, reason: str = "test") -> None:
        """The node is down at once and its jobs are requeued as after a crash."""
        self._set_node(node, "DOWN", f"Reason={reason}")

    def resume_node(self, node: str, timeout_s: float = 60) -> None:
        """The node takes jobs again after `down_node`."""
        self._set_node(node, "RESUME")
        self.wait_idle([node], timeout_s=timeout_s)

    def _set_node(self, node: str, state: str, *more: str) -> None:
        self.run("scontrol", "update", f"NodeName={node}", f"State={state}", *more)

    def stop_controller(self, kill: bool = False) -> None:
        """No slurmctld: clients get "Unable to contact slurm controller"; jobs run on."""
        if process := self.daemon("slurmctld"):
            self._end([process], 0 if kill else 15)

    def start_controller(self, timeout_s: float = 30) -> None:
        """slurmctld answers again, with the state it had."""
        if self.daemon("slurmctld") is None:
            self._run_daemon("slurmctld", "-f", str(self.conf))
        _wait_until(lambda: not self.run("sinfo", "-h", check=False).returncode, timeout_s)

    def freeze_controller(self) -> None:
        """slurmctld accepts connections and never answers, as when it is overloaded."""
        if process := self.daemon("slurmctld"):
            process.suspend()

    def unfreeze_controller(self) -> None:
        """slurmctld answers again after `freeze_controller`."""
        if process := self.daemon("slurmctld"):
            process.resume()

    def heal(self, timeout_s: float = 60) -> None:
        """No jobs, every daemon back, every node idle: as after `start`."""
        self.unfreeze_controller()
        self.start_controller(timeout_s)
        self._drop_jobs(wait_s=15)
        self._kill_processes()
        for node in self.nodes:
            if self.daemon(f"slurmd.{node}") is None:
                self.start_node(node)
        states = self.node_states()
        for node in [name for name in self.nodes if states.get(name) not in _USABLE]:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        self.wait_idle(timeout_s=timeout_s)

    # Jobs and observations

    def run(
        self, *words: str, check: bool = True, timeout_s: float = 120, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The output of a command in the cluster's environment.

        Raises:
            ClusterError: It failed and `check` is set.
        """
        done = subprocess.run(
            words, env=self.env, capture_output=True, text=True, timeout=timeout_s, input=stdin,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise ClusterError(f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def submit(self, *options: str) -> str:
        """The id of the job that `sbatch` made of these options."""
        return self.run("sbatch", "--parsable", *options).stdout.strip().split(";")[0]

    def shorten(self, job_id: str, seconds: int = 1) -> None:
        """The job's limit ends in `seconds`; Slurm looks every 30 s, then says TIMEOUT."""
        self.run("scontrol", "update", f"JobId={job_id}", f"EndTime=now+{seconds}")

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Restarts, Reason, NodeList, Dependency, ..."""
        text = self.run("scontrol", "show", "job", "-o", job_id).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def squeue(self, *options: str) -> list[dict[str, str]]:
        """The queue, one row per job and array element: id, name, state, reason, nodes, ..."""
        layout = "\x1f".join(QUEUE_FIELDS.values())
        text = self.run("squeue", "-h", "-r", "-o", layout, *options).stdout
        return [dict(zip(QUEUE_FIELDS, line.split("\x1f"), strict=True)) for line in _lines(text)]

    def states(self, job_id: str) -> list[str]:
        """The state of a job, or of each element of an array; finished ones too."""
        text = self.run("squeue", "-h", "-r", "-t", "all", "-j", job_id, "-o", "%T").stdout
        return _lines(text)

    def wait_state(
        self, job_id: str, states: str | Sequence[str] = "COMPLETED", timeout_s: float = 60
    ) -> str:
        """The state that the job (or all elements of an array) reached, one of `states`.

        Raises:
            TimeoutError: It did not in time; the text holds what Slurm says of the job.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        end = time.monotonic() + timeout_s
        while True:
            found = self._states_or_none(job_id)
            if found and set(found) <= wanted:
                return found[-1]
            if time.monotonic() > end:
                said = self.run("scontrol", "show", "job", job_id, check=False)
                text = f"job {job_id} is {found}, not {sorted(wanted)}, after {timeout_s} s"
                raise TimeoutError(f"{text}\n{said.stdout}{said.stderr}")
            time.sleep(0.1)

    def _states_or_none(self, job_id: str) -> list[str] | None:
        try:
            return self.states(job_id)
        except ClusterError:  # the controller may be down on purpose
            return None

    def records(self, job_id: str) -> list[dict[str, str]]:
        """The accounting rows of a job, one per run of it (`sacct --duplicates`), oldest first.

        They follow the queue by one to five seconds: see `wait_records`.
        """
        text = self.run(
            "sacct", "-X", "-P", "-n", "--duplicates", "-j", job_id, "-o", RECORD_FIELDS
        ).stdout
        names = RECORD_FIELDS.split(",")
        return [dict(zip(names, line.split("|", len(names) - 1), strict=True))
                for line in _lines(text)]  # fmt: skip

    def wait_records(
        self, job_id: str, states: Sequence[str], timeout_s: float = 30
    ) -> list[dict[str, str]]:
        """The accounting rows of a job once their states are `states`, in that order.

        Raises:
            TimeoutError: They are not in time; the text holds the rows.
        """
        end = time.monotonic() + timeout_s
        while True:
            rows = self.records(job_id)
            if [row["State"].split()[0] for row in rows] == list(states):
                return rows
            if time.monotonic() > end:
                raise TimeoutError(f"job {job_id}: not {list(states)} after {timeout_s} s: {rows}")
            time.sleep(0.2)

    def node_states(self) -> dict[str, str]:
        """`{"n1": "idle", ...}`; empty when the controller does not answer."""
        text = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T", check=False).stdout
        return {name: state for name, state in map(str.split, _lines(text))}

    def wait_idle(self, nodes: Sequence[str] | None = None, timeout_s: float = 60) -> None:
        """The nodes (all of them) can take jobs."""
        names = nodes or self.nodes

        def usable() -> bool:
            states = self.node_states()
            return all(states.get(name) in _USABLE for name in names)

        try:
            _wait_until(usable, timeout_s)
        except TimeoutError:
            raise ClusterError(f"nodes not usable: {self.node_states()}; {self.tail()}") from None

    def tail(self, characters: int = 1500) -> str:
        """The end of the controller's log."""
        log = self.root / "log" / "slurmctld.log"
        return log.read_text(errors="replace")[-characters:] if log.exists() else "no log"


_USABLE = ("idle", "mixed", "allocated")


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


def _can_unshare() -> bool:
    user = ["--user", "--map-current-user", "--keep-caps"] if os.getuid() else []
    words = ["unshare", *user, "--uts", "--mount", "hostname", "n1"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _listens(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], object], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {timeout_s} s")
        time.sleep(0.05)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def main() -> int:
    """The exit code of one verb."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["start", "status", "shell", "stop", "guard"])
    parser.add_argument("root", nargs="?", type=Path,
                        default=Path(tempfile.gettempdir()) / "mini-slurm")  # fmt: skip
    for field in dataclasses.fields(ClusterSpec):
        kind = type(field.default)
        option = f"--{field.name.replace('_', '-')}"
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(option, type=kind, default=None)
    arguments = vars(parser.parse_args())
    verb, root = arguments.pop("verb"), arguments.pop("root")
    return _act(verb, root, {key: value for key, value in arguments.items() if value is not None})


def _act(verb: str, root: Path, sizes: dict[str, object]) -> int:
    cluster = MiniSlurm(root, ClusterSpec(**sizes) if verb == "start" else None)
    if verb == "start":
        begin = time.monotonic()
        cluster.stop()
        cluster.start()
        print(f"ready in {time.monotonic() - begin:.1f} s: {len(cluster.nodes)} nodes, "
              f"port {cluster.spec.port}\nexport SLURM_CONF={cluster.conf}")  # fmt: skip
    elif verb == "status":
        names = [
            "munged",
            "mariadbd",
            "slurmdbd",
            "slurmctld",
            *map("slurmd.{}".format, cluster.nodes),
        ]
        for name in names:
            process = cluster.daemon(name)
            print(f"{name:12} {process.pid if process else 'not running'}")
        print(cluster.run("sinfo", check=False).stdout + cluster.run("squeue", check=False).stdout)
    elif verb == "shell":
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.run([shell], env=cluster.env, check=False).returncode
    else:
        if verb == "guard":  # the owner's end of the pipe closes when it is gone, however it went
            sys.stdin.read()
        killed = cluster.stop()
        print(f"stopped; killed: {', '.join(killed) or 'nothing'}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
