"""What is shown of a run: status, report, grids, inspection; read from its files, written never.

The run may be another user's, and everything in it hostile: text is escaped, pictures are files of
that kind in the folder of the grids, and the pages of the run are shown without their scripts.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import HpcError
from hpc.observe.status import RunStatus
from hpc.observe.terminal import displayable
from hpc.observe.view import count_of, duration_text, rate_text, stage_facts
from hpc.regular_files import NotRegularFileError, open_regular

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_PAGE_BYTES = 256 << 20
MAX_PICTURE_BYTES = 32 << 20
MAX_STEPS = 24
"""Newest validation grids that are shown."""
PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE = re.compile(r"(step_\d{1,12})/([\w-]{1,64}\.png)", re.ASCII)


@dataclass
class RunPages:
    """The pages of one run; its methods may be called from several threads."""

    root: Path
    read_status: Callable[[], RunStatus]
    read_grids: Callable[[], Sequence[Mapping[str, Any]]]
    """Images of the validation grids: `step`, `prompt`, `seed`, `path` below `grids`."""
    grids: Path
    """Folder of the validation grids."""
    render_inspection: Callable[[], str]
    """A page about the shards that there are now; takes seconds."""
    status_s: float = 2.0
    """Age up to which a status is shown again, s."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _status: tuple[float, RunStatus] | None = None
    _inspection: tuple[list[int], str] | None = None

    def shell(self) -> str:
        """The page that holds all others."""
        return self._render("page.html.j2", status=self.status(), grids=self.grid_rows())

    def status(self) -> str:
        """The status as a fragment of HTML."""
        status = self._recent_status()
        report = self.root / "report.html"
        return self._render(
            "status.html.j2",
            stages=[_stage_row(stage) for stage in status.stages],
            status=status,
            clock=time.strftime("%H:%M:%S"),
            report=int(report.stat().st_mtime) if report.is_file() else "",
        )

    def grid_rows(self) -> str:
        """The validation grids as a fragment of HTML, the newest first."""
        steps: dict[int, list[Mapping[str, Any]]] = {}
        try:
            for image in self.read_grids():
                if _PICTURE.fullmatch(str(image["path"])):
                    steps.setdefault(int(image["step"]), []).append(image)
        except (OSError, ValueError, KeyError, TypeError, HpcError):
            steps = {}
        newest = sorted(steps.items(), reverse=True)[:MAX_STEPS]
        return self._render("grids.html.j2", steps=newest, more=len(steps) - len(newest))

    def style(self) -> bytes:
        """The style of the page."""
        return (Path(__file__).parent / "page.css").read_bytes()

    def script(self) -> bytes:
        """The script of the page, which shows what is new."""
        return (Path(__file__).parent / "page.js").read_bytes()

    def report(self) -> bytes:
        """The page of the evaluation.

        Raises:
            OSError: there is none, or it is no regular file of a page's size.
        """
        with open_regular(self.root / "report.html", most=MAX_PAGE_BYTES) as file:
            return file.read()

    def picture(self, name: str) -> bytes:
        """A picture of a validation grid, by its name in the index.

        Raises:
            OSError: there is none of that name, or it is no PNG.
        """
        match = _PICTURE.fullmatch(name)
        if match is None:
            raise FileNotFoundError(name)
        data = _read_below(self.grids, match[1], match[2])
        if not data.startswith(PNG):
            raise NotRegularFileError(f"{name} is no PNG")
        return data

    def inspection(self) -> str:
        """A page about the shards that there are now; one at a time is made."""
        with self._lock:
            shards = [stage.disk.done for stage in self._recent_status().stages]
            known = self._inspection
            if known is None or known[0] != shards:
                known = self._inspection = (shards, self.render_inspection())
            return known[1]

    def _recent_status(self) -> RunStatus:
        known = self._status
        if known is None or time.monotonic() - known[0] > self.status_s:
            known = self._status = (time.monotonic(), self.read_status())
        return known[1]

    def _render(self, template: str, **values: Any) -> str:
        root = displayable(os.fsencode(self.root).decode(errors="replace"))
        name = root.rpartition("/")[2]
        return _environment().get_template(template).render(name=name, root=root, **values)


def _read_below(folder: Path, *parts: str) -> bytes:
    """Content of a regular file below `folder`; no link on the way is followed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, part in enumerate(parts, 1):
            kind = os.O_NONBLOCK if number == len(parts) else os.O_DIRECTORY
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        with open_regular(Path(f"/dev/fd/{descriptor}"), most=MAX_PICTURE_BYTES) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _stage_row(stage: Any) -> dict[str, Any]:
    """What the row of a stage shows."""
    disk = stage.disk
    done, goal, unit = count_of(disk)
    inside = disk.under_way.share if disk.under_way is not None else 0.0
    share = min((done + inside) / goal, 1.0) if goal else 0.0
    return {
        "name": disk.name,
        "state": stage.state,
        "done": f"{done}/{goal if goal is not None else '?'} {unit}",
        "share": 1.0 if stage.state == "COMPLETE" else share,
        "samples": "" if not disk.samples else f"{disk.samples:,}",
        "rejected": "" if not disk.rejected else f"{disk.rejected:,}",
        "rate": "" if disk.per_s is None else rate_text(disk.per_s),
        "eta": "" if disk.left_s is None else duration_text(disk.left_s),
        "facts": "; ".join(stage_facts(stage)),
        "problem": stage.problem or "",
    }


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
