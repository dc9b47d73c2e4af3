"""The examples of docs/api.md, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from geotiff_folder import write_geotiffs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


@pytest.mark.slow
def test_the_page_runs_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 4
    write_geotiffs(tmp_path / "sar")
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "('simulate', 'COMPLETE')" in done.stdout
    assert (tmp_path / "corpus" / "index.parquet").is_file()
    assert (tmp_path / "compared" / "report.html").is_file()
