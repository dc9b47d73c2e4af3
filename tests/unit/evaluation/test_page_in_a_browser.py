"""The page of an evaluation in headless Chromium: three widths, hostile texts, with and without
scripts."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from headless_chromium import BROWSER, Tab, tab
from test_report import example

from sarhpc.evaluation.gates import GateResult
from sarhpc.evaluation.headline import Headline
from sarhpc.evaluation.report import Picture
from sarhpc.evaluation.report_page import render

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium"),
]
OWNED = "document.documentElement.dataset.owned=1"
HOSTILE = (
    f'<img src=x onerror="{OWNED}"><script>{OWNED}</script></script></style></title>\'"`{{{{7*7}}}}'
    f"javascript:{OWNED} " + "unbroken" * 40
)
WIDTHS = (400, 800, 1300)


def hostile_blocks() -> dict[str, Any]:
    """A block of each section, as measures leave it, with hostile names and reasons."""
    distance = {"raw": 1.0, "tiles": 4, "null_median": 1.0, "null_95": 2.0, "p_value": 0.5}
    level = {"tiles": 4, "enl": 1.0, "k2": 1.6, "k3": -2.4, "mean_db": -9.0,
             "mean_db_error": 0.1, "p99_9_db": 0.0}  # fmt: skip
    read = {"value": 0.5, "low": 0.4, "high": 0.6,
            "shuffled": {"value": 0.1, "low": 0.0, "high": 0.2}}  # fmt: skip
    return {
        "classes": {"classes": {HOSTILE: {"real": level, HOSTILE: level}}},
        "features": {
            "vectors": {"measured": {"width": 60}},
            "sets": {HOSTILE: {"measured": {"frechet": distance}}},
            "left_out": [HOSTILE],
        },
        "text": {
            "model": HOSTILE,
            "revision": HOSTILE,
            "classes": {HOSTILE: [HOSTILE]},
            "sets": {HOSTILE: {"images": 4, "classes": read | {"confusion": [[4]]}}},
            "contract": {HOSTILE: [HOSTILE]},
            "left_out": [HOSTILE],
        },
        "memory": {
            "px": [128, 128],
            "limit": 0.4,
            "false_alarms": 0.001,
            "calibration": {"tiles": 40},
            "memorised": {"count": 1, "of": 4, "share": 0.25, "low": 0.0, "high": 0.5},
            "diversity": {
                "tiles": 4,
                **{
                    name: {"vendi": 3.0, "mean_distance_to_nearest": 1.0}
                    for name in ("corpus", "training")
                },
            },
            "pairs": [
                {
                    "key": HOSTILE,
                    "nearest": HOSTILE,
                    "scene": HOSTILE,
                    "picture": HOSTILE,
                    "copy": copy,
                    "similarity": 0.5,
                    "evidence": 1.0,
                    "ratio": None,
                    "flipped": True,
                    "shift_px": [1, 2],
                }
                for copy in (True, False)
            ],
        },
        "use": {"reason": HOSTILE},
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a page whose every text is hostile."""
    plain = example(scenes=8)
    assert plain.evaluation is not None
    names = {"real": "real", "base": HOSTILE, "demo": HOSTILE[::-1]}
    evaluation = dataclasses.replace(
        plain.evaluation,
        sets={names[name]: of for name, of in plain.evaluation.sets.items()},
    )
    pictures = [Picture(one.image, HOSTILE, HOSTILE) for one in plain.real]
    hostile = dataclasses.replace(
        plain,
        name=HOSTILE,
        facts={HOSTILE: HOSTILE, "pixels": "amplitude"},
        config_yaml=HOSTILE,
        real=pictures,
        synthetic={names[name]: pictures for name in plain.synthetic},
        evaluation=evaluation,
        tiles={names[name]: tiles for name, tiles in plain.tiles.items()},
        gates=[GateResult(HOSTILE, HOSTILE, 1.0, 0.0, 2.0, "fail", HOSTILE)],
        stages=[dataclasses.replace(plain.stages[0], name=HOSTILE, rejected={HOSTILE: 3})],
        conformity={HOSTILE: plain.conformity["real"]},
        progress_prompts=[HOSTILE],
        progress=[dataclasses.replace(plain.progress[0], label=HOSTILE)],
        notes=[HOSTILE, f"E8, {HOSTILE}"],
        headline=Headline(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}),
        blocks=hostile_blocks(),
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    text = render(hostile)
    assert not re.findall(r"This section cannot be shown[^<]*", text)
    assert re.findall(r'<b class="\w+">([^<]*)</b>:\nsimilarity', text) == [
        "copy",
        "no copy by the limit",
    ]
    path.write_text(text)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_hostile_page_fits_and_says_nothing_on_the_console(
    browser: Tab, page: str, width: int, scheme: str
) -> None:
    browser.complaints.clear()
    browser.show(page, width, scheme)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.complaints == []
    assert browser.value("document.documentElement.dataset.owned === undefined")
    assert browser.value("document.scripts.length") == 1
    assert browser.value("document.querySelectorAll('[src=x]').length") == 0


def test_what_is_injected_would_not_run_either(browser: Tab, page: str) -> None:
    """The policy of the page itself, were a text ever taken for markup."""
    browser.show(page, 800)
    browser.value(
        "new Promise(done => { const one = document.createElement('script');"
        f" one.textContent = '{OWNED}'; document.body.append(one);"
        " const two = document.createElement('div');"
        f" two.innerHTML = `<img src='x' onerror='{OWNED}'>`; document.body.append(two);"
        " setTimeout(done, 200); })"
    )
    assert browser.value("document.documentElement.dataset.owned === undefined")


def test_headings_images_and_tables_are_accessible(browser: Tab, page: str) -> None:
    browser.show(page, 1300)
    levels = browser.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert browser.value("[...document.images].every(image => image.alt.trim())")
    assert browser.value(
        "[...document.querySelectorAll('figure svg')].every(svg =>"
        " svg.closest('[role=img]').getAttribute('aria-label').trim())"
    )
    assert browser.value(
        "[...document.querySelectorAll('table')].every(table => table.caption &&"
        " [...table.querySelectorAll('th')].every(th => th.scope))"
    )
    ids = browser.value("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert browser.value("[...document.links].every(a => document.querySelector(a.hash))")


CONTRASTS = """
(() => {
  const lightness = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratios = [];
  for (const one of document.querySelectorAll("main *")) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || one.closest("svg")) continue;
    const [a, b] = [getComputedStyle(one).color, behind(one)].map(lightness);
    ratios.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.className]);
  }
  return ratios.sort((a, b) => a[0] - b[0])[0];
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_that_wcag_asks_for(browser: Tab, page: str, scheme: str) -> None:
    browser.show(page, 1300, scheme)
    ratio, where = browser.value(CONTRASTS)
    assert ratio >= 4.5, where


def test_a_set_can_be_hidden_and_a_tile_magnified_and_enlarged(browser: Tab, page: str) -> None:
    browser.show(page, 1300)
    of_set = "[...document.querySelectorAll('figure.plot [data-set=\"1\"]')]"
    hidden = f"{of_set}.every(one => getComputedStyle(one).display === 'none')"
    assert browser.value(f"{of_set}.length") >= 8
    assert not browser.value(hidden)
    browser.value("document.querySelectorAll('.legend button')[1].click()")
    assert browser.value(hidden)
    browser.value("document.querySelectorAll('.legend button')[1].click()")
    assert not browser.value(hidden)
    browser.value(
        "document.querySelector('.row img').dispatchEvent(new PointerEvent('pointermove',"
        " {pointerType: 'mouse', clientX: 100, clientY: 100}))"
    )
    assert browser.value("document.querySelector('.row').querySelectorAll('.lens').length") == 3
    browser.value("document.querySelector('.row img').click()")
    assert browser.value("document.querySelector('dialog').open")
    browser.value("document.querySelector('dialog button').click()")
    assert browser.value("document.querySelector('dialog[open]') === null")


def test_the_page_is_whole_without_scripts_and_in_print(browser: Tab, page: str) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(page, 800, "dark", "print")
        assert browser.value("document.querySelectorAll('.row img').length") == 6
        assert browser.value("document.querySelectorAll('figure.plot svg').length") >= 10
        assert browser.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert browser.value(
            "getComputedStyle(document.querySelector('.with-script')).display"
        ) == ("none")
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)
