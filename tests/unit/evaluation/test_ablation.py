"""The table of an ablation: what differs, which runs are ranked, and its formats."""

from __future__ import annotations

import copy
import csv
import io
import json
from typing import Any

import pytest

from sarhpc.evaluation.ablation import EvaluatedRun, differing, tabulate
from sarhpc.evaluation.ablation_formats import to_csv, to_html, to_markdown

REAL = {"tiles": 24, "enl_mode": 1.03, "mean_db": -12.25, "measures": {}}
COST = {"unit": "GPU-h", "total": 2.0, "stages": {"train": 1.5, "generate": 0.5}, "images": 100}


def verdict(raw: float, width: float = 0.1, tiles: int = 12) -> dict[str, Any]:
    return {
        "raw": raw, "low": raw - width, "high": raw + width, "null_median": 0.2, "null_95": 0.4,
        "log_ratio": 0.0, "p_value": 0.3, "tiles": tiles, "reference_tiles": tiles,
        "groups": 12, "groups_drawn": 6,
    }  # fmt: skip


def evaluation(w1: float, lsd: float, **changes: Any) -> dict[str, Any]:
    ours = {"tiles": 12, "measures": {"E3_w1": verdict(w1), "E5_lsd": verdict(lsd, 1.0)}}
    cell = {"raw": 1 - w1 / 10, "null_median": 0.9, "null_95": 0.8, "null_deviation": 0.1,
            "p_value": 0.5, "tiles": 12, "groups": 12, "groups_drawn": 6}  # fmt: skip
    features = {
        "vectors": {"measured": {"width": 37, "input": ""}},
        "sets": {"this run": {"measured": {"coverage": cell, "frechet": {"reason": "few"}}}},
    }
    return {
        "schema": "sarhpc.evaluation/2", "version": "0.1.0", "pixels": "8-bit codes",
        "px": [64, 64], "sets": {"real": REAL, "this run": ours}, "features": features,
        "gates": [{"name": "w1_db", "verdict": "pass"}, {"name": "lsd_db", "verdict": "fail"}],
    } | changes  # fmt: skip


def run(name: str, found: dict[str, Any] | None, **settings: Any) -> EvaluatedRun:
    config = {"data": name, "train": {"lr": 1e-5, "adapter": None} | settings, "seed": 0}
    missing = "" if found else f"not evaluated yet: sarhpc evaluate {name}"
    return EvaluatedRun(name, f"runs/{name}", config, found, missing, COST, {})


def test_only_settings_that_differ_are_columns() -> None:
    lora = {"adapter": {"kind": "lora", "rank": 8}}
    runs = [run("full", None), run("r8", None, **lora), run("r8x", None, lr=2e-5, **lora)]
    table = tabulate(runs)
    assert table.settings == ("train.lr", "train.adapter")
    assert [row.settings["train.adapter"] for row in table.rows] == [
        None, "kind=lora, rank=8", "kind=lora, rank=8",
    ]  # fmt: skip
    more = tabulate([*runs, run("r64", None, adapter={"kind": "lora", "rank": 64})])
    assert more.settings == ("train.lr", "train.adapter", "train.adapter.rank")
    assert [row.settings.get("train.adapter.rank") for row in more.rows] == [None, 8, 8, 64]
    assert [row.settings["train.adapter"] for row in more.rows][:2] == [None, "set"]
    assert tabulate([runs[0], runs[0]]).settings == ()


def test_a_branch_of_a_branch_that_is_not_there_is_told_once() -> None:
    keys, values = differing([{"a": None}, {"a": {"b": {"c": 1}}}])
    assert (keys, values) == (("a",), [{"a": None}, {"a": "b.c=1"}])


def test_runs_are_ranked_by_each_measure_and_close_ones_are_as_good() -> None:
    table = tabulate([run("a", evaluation(0.9, 2.0)), run("b", evaluation(0.3, 2.5), lr=1.0)])
    a, b = (row.cells for row in table.rows)
    assert (a["E3_w1"].rank, b["E3_w1"].rank) == (2, 1)
    assert not a["E3_w1"].like_best
    assert (b["E5_lsd"].rank, b["E5_lsd"].like_best) == (2, True)
    # More coverage is better.
    assert (a["E9_measured_coverage"].rank, b["E9_measured_coverage"].rank) == (2, 1)
    assert (a["E9_measured_frechet"].raw, a["E9_measured_frechet"].rank) == (None, None)
    assert table.notes == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0.2.0"}, "version of the evaluation"),
        ({"schema": "sarhpc.evaluation/3"}, "version of the evaluation"),
        ({"pixels": "amplitude"}, "pixels"),
        ({"sets": "other real tiles"}, "real tiles"),
        ({"sets": "other sizes"}, "numbers of tiles"),
    ],
)
def test_runs_that_do_not_compare_are_not_ranked_and_that_is_said(
    change: dict[str, Any], said: str
) -> None:
    other = evaluation(0.3, 2.5)
    if change.get("sets") == "other real tiles":
        other["sets"] = copy.deepcopy(other["sets"])
        other["sets"]["real"]["mean_db"] = -12.250001
    elif change.get("sets") == "other sizes":
        other["sets"]["this run"]["measures"] = {"E3_w1": verdict(0.3, tiles=13)}
    else:
        other |= change
    table = tabulate([run("a", evaluation(0.9, 2.0)), run("b", other)])
    assert [row.group for row in table.rows] == [1, 2]
    assert all(cell.rank is None for row in table.rows for cell in row.cells.values())
    [note] = table.notes
    assert note.startswith(f"b: not ranked against a, as these differ: {said}.")


def test_features_of_different_networks_are_different_measures() -> None:
    def of(sha: str, px: int) -> dict[str, Any]:
        found = evaluation(0.3, 2.5)
        facts = {"path": f"/m/{sha}", "sha256": sha * 8, "width": 8, "input": {"px": px}}
        found["features"] = {
            "vectors": {"backbone": facts},
            "sets": {"this run": {"backbone": {"kernel": {"raw": 1.0, "tiles": 12,
                                                          "reason": ""}}}},
        }  # fmt: skip
        return found

    table = tabulate([run("a", of("aa", 32)), run("b", of("bb", 32)), run("c", of("bb", 64))])
    assert [m.name for m in table.measures if m.name.startswith("E9")] == [
        "E9_backbone_aaaaaaaa_kernel", "E9_backbone_bbbbbbbb_kernel",
    ]  # fmt: skip
    # The same network with another input is not compared either.
    assert table.rows[1].cells["E9_backbone_bbbbbbbb_kernel"].rank is None


def test_a_run_without_an_evaluation_is_named_and_has_no_numbers() -> None:
    table = tabulate([run("a", evaluation(0.9, 2.0)), run("b", None)])
    assert table.rows[1].cells == {}
    assert table.rows[1].group is None
    assert table.notes == ("b: not evaluated yet: sarhpc evaluate b",)
    text = to_markdown(table)
    assert "| b | not evaluated | - | - |" in text
    assert "- b: not evaluated yet: sarhpc evaluate b" in text


def test_markdown_csv_and_page_hold_the_same_numbers_and_escape_names() -> None:
    hostile = "=x|<script>alert(1)</script>"
    scores = {"before": {"BLEU-4": 0.1}, "after": {"BLEU-4": 0.25, "CIDEr": 1.5}}
    runs = [run("a", evaluation(0.9, 2.0)), run(hostile, evaluation(0.3, 2.5), lr=3e-5)]
    runs[0] = EvaluatedRun(**(vars(runs[0]) | {"captions": scores}))
    table = tabulate(runs)
    markdown, page = to_markdown(table), to_html(table)
    for text in (markdown, page):
        assert "0.9; [0.8, 1]; null 0.2, 95 % 0.4; p 0.300; rank 2" in text.replace(
            "\\[", "["
        ).replace("\\]", "]")
        assert "1 of 2" in text
        assert "1.5 GPU-h" in text
        assert "0.25" in text
        assert "no number: few" in text
        assert "<script>" not in text.replace("\\<script\\>", "")
    columns = {line.count(" | ") for line in markdown.splitlines() if line.startswith("| a")}
    assert len(columns) == 2, "settings and captions, each with its own number of cells"
    assert "http" not in page
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["E3_w1.raw"] for row in rows] == ["0.9", "0.3"]
    assert [row["E3_w1.rank"] for row in rows] == ["2", "1"]
    assert rows[0]["captions.after.CIDEr"] == "1.5"
    assert rows[1]["run"] == f"'{hostile}", "no formula of a spreadsheet"
    assert rows[1]["train.lr"] == "3e-05"
    assert json.loads(json.dumps(table.to_json()))["schema"] == "sarhpc.ablation/1"


def test_captions_and_use_are_rows_too_where_they_were_measured() -> None:
    def of(value: float, model: str = "clip") -> dict[str, Any]:
        one = {"value": value, "low": value - 0.1, "high": value + 0.1, "shuffled": {}}
        ours = {"score": one, "relations": {"range": {"left_out": "8 captions are too few"}}}
        text = {"model": model, "revision": "a", "sets": {"this run": ours}}
        score = {"setting": "synthetic", "share": 0.0, "labels": 0, "iou": None, "seeds": []} | one
        real = score | {"setting": "real", "share": 1.0, "labels": 100}
        mixed = score | {"setting": "mixed", "share": 0.05, "labels": 5}
        use = {"task": "classes", "classes": ["a"], "scores": [score, real, mixed]}
        return evaluation(0.9, 2.0, text=text, use=use)

    table = tabulate([run("a", of(0.2)), run("b", of(0.5)), run("c", of(0.9, "other"))])
    names = [m.name for m in table.measures if m.name.startswith("E1") and m.name[2].isdigit()]
    assert names == [
        "E10_CLIP score, 100 times the cosine",
        "E10_near range and far range as the caption says",
        "E12_synthetic_0",
        "E12_mixed_0.05",
    ]
    ranks = [[row.cells[name].rank for row in table.rows] for name in names]
    # Another CLIP has other values; networks of one task compare.
    assert ranks == [[2, 1, None], [None] * 3, [3, 2, 1], [3, 2, 1]]
    text = to_markdown(table)
    assert "synthetic beside 5 real labels" in text
    assert "no number: 8 captions are too few" in text
    assert "no null" not in text.partition("E12")[2].partition("Captioners")[0]


def test_copies_are_rows_too() -> None:
    def of(count: int) -> dict[str, Any]:
        share = {"count": count, "of": 100, "share": count / 100, "low": 0.0, "high": 0.5}
        diversity = {"tiles": 100, "corpus": {"vendi": 90.0 - count}, "training": {"vendi": 95.0}}
        memory = {"px": [64, 64], "false_alarms": 0.001, "calibration": {"tiles": 50}}
        memory |= {"memorised": share, "within": None, "diversity": diversity}
        return evaluation(0.9, 2.0, memory=memory)

    left_out = evaluation(0.9, 2.0, memory={"left_out": "too few training tiles"})
    table = tabulate([run("a", of(3)), run("b", of(0)), run("c", left_out)])
    for name in ("E11_memorised", "E11_vendi"):
        assert [row.cells[name].rank for row in table.rows[:2]] == [2, 1]
        assert name not in table.rows[2].cells
