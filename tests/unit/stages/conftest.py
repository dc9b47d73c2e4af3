"""What tests of stages share."""

from __future__ import annotations

import pytest


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without its ten figures, which take half of the time of a small evaluation.

    For tests of what is measured; other tests draw them of the same sets.
    """
    monkeypatch.setattr("sarhpc.evaluation.report_context._figures", lambda *_: [])
