"""The pages of a run: who gets them, what is in them, and what is not."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from other_user import contents
from viewed_runs import HOSTILE, NAME, ask, hostile_run, served

from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.viewer.access import Address, is_loopback_name, registered, served_address


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return hostile_run(tmp_path_factory.mktemp("viewed"))


@pytest.fixture(autouse=True, scope="module")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARHPC_STATE", str(tmp_path_factory.mktemp("state")))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield


@pytest.fixture(scope="module")
def address(run: RunDir, _own_state: None) -> Iterator[Address]:
    with served(run) as found:
        yield found


def test_one_page_holds_status_report_grids_and_inspection(address: Address) -> None:
    root = f"/{address.token}/"
    code, headers, body = ask(address, root)
    page = body.decode()
    assert code == 200
    for part in ('id="status"', 'id="report"', 'id="grids"', 'id="inspection"', "COMPLETE",
                 "step 2", "step 0", "the requested stages are complete"):  # fmt: skip
        assert part in page, part
    assert headers["Referrer-Policy"] == "no-referrer", "the address holds the token"
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "<script>" not in page
    assert ask(address, f"{root}report")[2].startswith(b"<!doctype html><p id=r>report")
    code, headers, body = ask(address, f"{root}inspection")
    assert code == 200
    assert b"2 samples" in body or b"Integrity" in body
    for part in ("report", "inspection"):
        assert ask(address, root + part)[1]["Content-Security-Policy"].startswith("sandbox; ")


def test_texts_of_the_run_are_text(address: Address) -> None:
    for part in ("", "status", "grids", "inspection"):
        _, _, body = ask(address, f"/{address.token}/{part}")
        assert b"<img src=x" not in body, part
        assert b"<script>" not in body, part
    _, _, page = ask(address, f"/{address.token}/")
    assert b"&lt;img src=x onerror=" in page


@pytest.mark.parametrize(
    "path",
    ["/", "/status", "//", "/x/", "/{}x/", "/{}", "/favicon.ico", "/x/report", "/%00/status"],
)
def test_nothing_is_shown_without_the_token(address: Address, path: str) -> None:
    code, _, body = ask(address, path.format(address.token[:-1]))
    assert code in (400, 404)
    assert b"view RUN" in body
    assert address.token.encode() not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_is_taken(address: Address, method: str) -> None:
    assert ask(address, f"/{address.token}/", method)[0] == 405


def test_head_is_answered(address: Address) -> None:
    code, headers, body = ask(address, f"/{address.token}/", "HEAD")
    assert (code, body) == (200, b"")
    assert "text/html" in headers["Content-Type"]


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:1", True), ("localhost:8888", True), ("LOCALHOST", True), ("[::1]:9", True),
        ("evil.example", False), ("127.0.0.1.evil.example:80", False), ("", False),
        ("localhost.evil.example", False), ("evil@127.0.0.1", False), ("127.0.0.1:80:80", False),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_resolve_to_this_machine_gets_nothing(
    address: Address, host: str, known: bool
) -> None:
    assert is_loopback_name(host) is known
    code, _, body = ask(address, f"/{address.token}/status", Host=host)
    assert (code == 200) is known
    assert (b"<table" in body) is known


@pytest.mark.parametrize(
    "name",
    [
        "../../../secret.png", "..%2f..%2f..%2fsecret.png", "%2e%2e/%2e%2e/secret.png",
        "step_00000002/../../../secret.png", "step_00000002/link.png", "step_00000009/secret.png",
        "step_00000002/text.png", "step_00000002/p00_s0.png%00", "/etc/passwd", "//etc/passwd",
        "step_00000002/", "", "index.json", "step_00000002\\..\\..\\secret.png",
    ],
)  # fmt: skip
def test_nothing_but_pictures_of_the_grids_is_served(address: Address, name: str) -> None:
    root = f"/{address.token}/grids/"
    assert ask(address, root + "step_00000002/p00_s0.png")[2].startswith(b"\x89PNG")
    code, _, body = ask(address, root + name)
    assert code in (400, 404) or (name == "" and code == 200)
    assert not body.startswith(b"\x89PNG")
    for part in ("config.yaml", "../config.yaml", "run.json", ".key"):
        assert ask(address, f"/{address.token}/{part}")[0] == 404


def test_looking_writes_nothing_into_the_run(run: RunDir, address: Address) -> None:
    before = contents(run.root)
    for part in ("", "status", "grids", "report", "inspection", "page.js", "page.css"):
        assert ask(address, f"/{address.token}/{part}")[0] == 200
    assert contents(run.root) == before


def test_the_port_is_on_the_loopback_interface(address: Address) -> None:
    listening = [c.laddr for c in psutil.Process().net_connections("inet")
                 if c.status == psutil.CONN_LISTEN and c.laddr.port == address.port]  # fmt: skip
    assert {found.ip for found in listening} == {"127.0.0.1"}
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", address.port), 1):
        pass


def test_the_token_is_kept_where_only_its_user_reads_it(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    assert served_address(run.root) is None
    with registered(run.root, 1) as first, registered(run.root, 2) as second:
        assert first.token != second.token
        assert len(second.token) >= 43, "256 bits"
        assert served_address(run.root) == second
        [file] = (tmp_path / "sarhpc").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert second.token in file.read_text()
        assert second.token not in str(file)
    assert list((tmp_path / "sarhpc").iterdir()) == []
    tmp_path.chmod(0o755)
    with registered(run.root, 1):
        assert not list((tmp_path / "sarhpc").iterdir()), "a runtime folder that others can read"


def test_a_server_that_was_killed_is_none(run: RunDir, tmp_path: Path) -> None:
    with registered(run.root, 1) as address:
        child = subprocess.Popen(["true"])
        identity = {"host": address.server.host, "pid": child.pid, "born": 1.0}
        child.wait()
        [file] = Path(os.environ["SARHPC_STATE"], "view").glob("*-*.json")
        row = {"port": 1, "token": secrets.token_urlsafe(32), "server": identity}
        file.write_text(json.dumps(row))
        assert served_address(run.root) is None
        file.write_text("{")
        assert served_address(run.root) is None


def test_the_verb_prints_an_address_and_the_second_one_the_same(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "sarhpc.cli", "view", str(run.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(3)]
        try:
            [url] = re.findall(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", "".join(lines))
            assert main(["view", str(run.root)]) == 0
            assert url in capfd.readouterr().out
            found = served_address(run.root)
            assert found is not None
            assert ask(found, f"/{found.token}/status")[0] == 200
        finally:
            server.terminate()
    assert server.returncode == 0
    assert served_address(run.root) is None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in ("99999", "-1", str(taken.getsockname()[1])):
            assert main(["view", str(run.root), "--port", port]) == 2
            assert "leave it out for a free one" in capfd.readouterr().err


def test_a_run_that_has_nothing_yet_has_a_page(tmp_path: Path) -> None:
    from line_runs import tiny_run

    with served(tiny_run(tmp_path / "new", tmp_path / "model")) as address:
        _, _, page = ask(address, f"/{address.token}/")
        assert b"No validation grid yet" in page
        assert ask(address, f"/{address.token}/report")[0] == 404
        code, _, body = ask(address, f"/{address.token}/inspection")
        assert (code, b"has no shards yet" in body) == (404, True)
    assert HOSTILE in NAME.replace(chr(0x2215), "/")
