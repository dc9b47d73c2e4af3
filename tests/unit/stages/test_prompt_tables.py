"""Prompt tables as a user writes them: what is planned, and what is refused with file and line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from line_runs import TINY

from hpc.config import decisive, load, loads, to_yaml
from hpc.errors import ConfigError
from sarhpc.generation.prompts.images import planned_images
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.inputs.prompt_tables import CorpusTable, corpus_table
from sarhpc.stages.table_preview import table_lines

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def configured(*words: str) -> RunConfig:
    return loads(RunConfig, TINY, ["generate.images=null", *words])


def planned(path: Path, *words: str) -> CorpusTable:
    return corpus_table(configured(f"generate.table.file={path}", *words))


def images(corpus: CorpusTable) -> list[tuple[str, int, dict[str, Any]]]:
    found = planned_images(corpus.table, corpus.counts, corpus.fields, 0)
    return [(image.prompt, image.seed, json.loads(image.labels)) for image in found]


CSV = """\
prompt,count,seed,negative_prompt,class,site
a river,2,,,water,north
"a town, with houses",1,7,"blur, text",town,south
"""


def test_a_csv_gives_prompts_counts_seeds_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    corpus = planned(path)
    assert corpus.images == 3
    assert corpus.table.negatives == {1: "blur, text"}
    found = images(corpus)
    assert Counter(prompt for prompt, _, _ in found) == {
        "A SAR image of a river": 2,
        "A SAR image of a town, with houses": 1,
    }
    assert len({seed for _, seed, _ in found}) == 3
    assert ("A SAR image of a town, with houses", 7, {"class": "town", "site": "south"}) in found


def test_jsonl_and_parquet_say_the_same_and_keep_types(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a river", "weight": 3.0, "incidence": 20, "class": "water"},
        {"prompt": "a wood", "weight": 1.0, "incidence": 35, "class": "forest"},
    ]
    lines, table = tmp_path / "p.jsonl", tmp_path / "p.parquet"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), table)
    found = [images(planned(path, "generate.images=8")) for path in (lines, table)]
    assert found[0] == found[1]
    assert Counter(prompt for prompt, _, _ in found[0]).most_common(1)[0][1] == 6
    assert {labels["incidence"] for _, _, labels in found[0]} == {20, 35}


def test_a_given_seed_is_that_of_the_first_image_and_others_differ(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,count,seed\na lake,3,7\na wood,2,7\n")
    seeds = [seed for _, seed, _ in images(planned(path))]
    assert seeds.count(7) == 2, "the same noise for both prompts"
    assert len(set(seeds)) == 4


def test_descriptions_of_a_row_share_its_count(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("class,count\nforest,20\n")
    found = Counter(prompt for prompt, _, _ in images(planned(path)))
    assert sorted(found.values()) == [2] * 7 + [3] * 2


def test_a_column_of_seeds_with_gaps_is_read_as_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "seed": [7.0, None, 0.0]}), path)
    assert planned(path).table.seeds == {0: 7, 2: 0}
    path.unlink()
    pq.write_table(pa.table({"prompt": ["a"], "seed": [7.5]}), path)
    with pytest.raises(ConfigError, match=r"p\.parquet row 1: seed is 7\.5"):
        planned(path)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_line_ends_are_read(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(f"Prompt{delimiter}Site\r\na lake{delimiter}x\r\n".encode())
    assert images(planned(path))[0][2] == {"site": "x"}


def test_rows_of_fields_become_prompts_in_the_words_of_captions(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("class,relation,incidence_deg,count,id\nforest,crossed by road,35,9,f1\n")
    corpus = planned(path, "caption.template.variant=LONG")
    found = images(corpus)
    assert len({prompt for prompt, _, _ in found}) == 9, "each phrase of the class once"
    assert all(p.endswith("road, incidence 35 degrees") for p, _, _ in found)
    labels = {"class": "forest", "relation": "crossed by road", "incidence_deg": 35.0, "id": "f1"}
    assert all(found_labels == labels for _, _, found_labels in found)


def test_what_prompts_do_not_say_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("class,band\nforest,X\n")
    with pytest.raises(ConfigError, match=r"p\.csv line 2: band: no prompt would state it"):
        planned(path)
    stated = planned(path, "generate.prompt_template='A {band}-band SAR image of {prompt}'")
    assert stated.table.prompts[0] == "A X-band SAR image of a forest"


BAD = {
    "columns": ("text,count\na,1\n", r"p\.csv line 1: no column prompt .*rename text"),
    "empty": ("prompt\n", r"p\.csv: an empty table"),
    "nothing": ("", r"p\.csv: an empty table"),
    "empty prompt": ("prompt,n\na,1\n ,2\n", r"p\.csv line 3: prompt is '': text is expected"),
    "long": ("prompt\nok\n" + "word " * 10_000, r"p\.csv line 3: prompt has 10,000 words"),
    "long word": ("prompt\nok\n" + "x" * 5_000, r"p\.csv line 3: prompt has 1 words"),
    "duplicates": ("prompt\na lake\na wood\n\na lake\n", r"1 duplicates: line 5 repeats line 2"),
    "NaN": ("prompt,weight\na,1\nb,nan\n", r"p\.csv line 3: weight is 'nan'"),
    "infinite": ("prompt,weight\na,1\nb,inf\n", r"p\.csv line 3: weight is 'inf'"),
    "no number": ("prompt,weight\na,heavy\n", r"p\.csv line 2: weight is 'heavy': a number"),
    "negative": ("prompt,count\na,-1\n", r"p\.csv line 2: count is '-1'"),
    "half": ("prompt,count\na,1.5\n", r"p\.csv line 2: count is '1.5': a whole number"),
    "all zero": ("prompt,count\na,0\n", r"every count is 0"),
    "weights zero": ("prompt,weight\na,0\n", r"every weight is 0"),
    "both": ("prompt,count,weight\na,1,1\n", r"line 2: count and weight"),
    "seed": ("prompt,seed\na,-4\n", r"p\.csv line 2: seed is '-4'"),
    "seed of text": ("prompt,seed\na,x\n", r"p\.csv line 2: seed is 'x'"),
    "large seed": (
        "prompt,seed\na,9223372036854775808\n",
        r"line 2: seed is '9223372036854775808'",
    ),
    "cells": ("prompt,site\na river, wide,x\n", r"p\.csv line 2: 3 cells under 2 columns"),
    "quote": ('prompt\n"a river\n', r"p\.csv line 2: no CSV"),
    "column twice": ("prompt,prompt\na,b\n", r"p\.csv line 1: column prompt twice"),
    "class": (
        "class\nforest\ntwon\n",
        r"p\.csv line 3: class 'twon' is unknown; did you mean town",
    ),
    "relation": ("class,relation\ntown,by a lake\n", r"p\.csv line 2: relation 'by a lake' is unk"),
    "odd pair": ("class,relation\nwater,crossed by road\n", r"line 2: class water cannot be cross"),
    "control": ("prompt\na \x07 river\n", r"p\.csv line 2: prompt .* control character"),
    "angle": ("class,incidence_deg\nforest,steep\n", r"line 2: incidence_deg is 'steep'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_a_csv_is_told_with_file_and_line(tmp_path: Path, case: str) -> None:
    text, words = BAD[case]
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as reported:
        planned(path)
    assert str(reported.value).startswith("generate.table: ")
    assert reported.value.exit_code == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("prompt\na lake\n".encode("utf-16"), r"p\.csv line 1: UTF-16 .*iconv -f UTF-16 -t UTF-8"),
        ("prompt\na lake\n".encode("utf-16-le"), r"UTF-16 .*iconv"),
        ("prompt\na lake\na forêt\n".encode("latin-1"), r"line 3: byte 0xea .*iconv -f LATIN1"),
    ],
)
def test_other_encodings_are_named_with_the_command_that_converts_them(
    tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        planned(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"prompt": "a"}\n{"prompt": 3}\n', r"line 2: prompt is 3: text is expected"),
        ('{"prompt": "a"}\nriver\n', r"line 2: no JSON"),
        ('["a"]\n', r"line 1: no object like"),
        ('{"prompt": "a", "weight": NaN}\n', r"line 1: weight is nan"),
        ('{"prompt": "a", "count": true}\n', r"line 1: count is True"),
        ('{"prompt": "a", "site": [1]}\n', r"line 1: site is \[1\]: a label is one text or number"),
        ('{"prompt": "a", "n": 1}\n{"prompt": "b", "n": "x"}\n', r"line 2: n is 'x', and other"),
        ('{"prompt": "a"}\n{"prom": "b"}\n', r"line 2: no column prompt .*rename prom"),
    ],
)
def test_what_is_wrong_in_json_lines_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        planned(path)


def test_several_wrong_rows_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,count\n" + "a,x\n" * 9)
    with pytest.raises(ConfigError, match=r"line 2: .*\n.*line 3: .*\n(.*\n)*and perhaps more"):
        planned(path)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        planned(tmp_path / "p.csv")
    with pytest.raises(ConfigError, match=r"a file of \.csv, \.jsonl, \.parquet"):
        planned(tmp_path / "p.xlsx")
    torn = tmp_path / "p.parquet"
    torn.write_bytes(b"PAR1 and not much more")
    with pytest.raises(ConfigError, match="no Parquet file that can be read"):
        planned(torn)


GRAMMAR = "generate.table.grammar.classes=[water,forest,field,town]"


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["generate.table={}"], "give either file or grammar"),
        ([GRAMMAR, "generate.table.coverage=even"], r"coverage is 'even': one of"),
        ([GRAMMAR, "generate.table.max_per_prompt=0"], "max_per_prompt is 0"),
        ([GRAMMAR, "generate.table.by=[class,class]"], "by names a field twice"),
        ([GRAMMAR, "generate.table.by=[kind]"], "has no label kind"),
        (["generate.table.grammar.classes=[twon]"], r"class 'twon' is unknown; did you mean town"),
        (["generate.table.grammar.classes=[]"], "classes: none"),
        ([GRAMMAR, "generate.table.grammar.season=[monsoon]"], "season 'monsoon' is unknown"),
        ([GRAMMAR, "generate.table.grammar.density=[dense,dense]"], "a level is named twice"),
        ([GRAMMAR, "generate.table.grammar.incidence_deg=[-3]"], r"incidence_deg: -3\.0"),
        ([GRAMMAR, "generate.table.grammar.weights={twon: 2}"], r"weights 'twon' .* mean town"),
        ([GRAMMAR, "generate.table.grammar.relations=[crossed by road]"], "class water goes with"),
        ([GRAMMAR, "generate.table.phrases={port: ['']}"], r"phrases\.port: an empty description"),
        ([GRAMMAR, "generate.prompts=[a lake]"], r"generate\.table replaces generate\.prompts"),
        ([GRAMMAR, "generate.table.grammar.band=[X]"], "band: no prompt would state it"),
        (
            [GRAMMAR, "generate.table.coverage=balanced", "generate.table.max_per_prompt=1",
             "generate.images=400"],
            r"100 images of class=\w+ are planned and its \d+ prompts allow",
        ),
    ],
)  # fmt: skip
def test_settings_of_a_table_are_checked_before_anything_begins(
    words: list[str], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        GENERATE.check(configured(*words))


def test_a_grammar_is_balanced_over_classes_and_repeats_no_prompt() -> None:
    config = configured(
        GRAMMAR,
        "generate.table.grammar.relations=[none,with trees in the far range,beside town]",
        "generate.table.coverage=balanced",
        "generate.table.max_per_prompt=2",
        "generate.images=96",
    )
    found = images(corpus_table(config))
    assert Counter(labels["class"] for _, _, labels in found) == dict.fromkeys(
        ("water", "forest", "field", "town"), 24
    )
    assert max(Counter(prompt for prompt, _, _ in found).values()) <= 2
    assert all(prompt.startswith("A SAR image of ") for prompt, _, _ in found)
    towns = {labels["relation"] for _, _, labels in found if labels["class"] == "town"}
    assert towns == {"none", "with trees in the far range"}, "no town beside a town"
    lines = table_lines(config)
    assert lines[0].startswith("96 images of ")
    assert "class: water 24, forest 24, field 24, town 24" in lines


def test_no_prompt_dominates_the_corpus_of_the_demo() -> None:
    # By captions of held-out tiles 24 of its 96 images had one prompt: a class may have but one.
    found = images(corpus_table(load(RunConfig, CONFIGS / "demo.yaml")))
    assert Counter(labels["class"] for _, _, labels in found) == dict.fromkeys(
        ("water", "forest", "field", "town"), 24
    )
    assert max(Counter(prompt for prompt, _, _ in found).values()) <= 2
    first = Counter(labels["class"] for _, _, labels in found[:48])
    assert set(first.values()) == {12}, "the part that other models are asked for"


def test_weights_of_levels_and_own_classes() -> None:
    config = configured(
        "generate.table.phrases={port: [a port, a harbour with ships]}",
        "generate.table.grammar.classes=[port,river]",
        "generate.table.grammar.weights={port: 3}",
        "generate.images=40",
    )
    found = Counter(labels["class"] for _, _, labels in images(corpus_table(config)))
    assert found == {"port": 30, "river": 10}


def test_prompts_that_the_model_does_not_read_to_the_end_are_told(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt\na lake\na river " + "and a wide field " * 40 + "\n")
    config = configured(f"generate.table.file={path}", "train.base_model=/nowhere")
    assert table_lines(config)[-1].startswith(
        "1 prompts are longer than the 75 tokens that the mod"
    )
    path.write_text("prompt\na lake\n")
    assert "longer" not in table_lines(config)[-1]


def test_a_configuration_without_table_keeps_its_fingerprint_and_reads_back() -> None:
    plain = loads(RunConfig, TINY)
    assert "table" not in decisive(plain)["generate"]
    config = configured(GRAMMAR, "generate.table.grammar.weights={town: 2.0}", "generate.images=4")
    again = loads(RunConfig, to_yaml(config), origin="frozen")
    assert again == config
    assert (
        GENERATE.fingerprint(again) == GENERATE.fingerprint(config) != GENERATE.fingerprint(plain)
    )


def test_numeric_levels_have_weights_by_their_number() -> None:
    config = configured(
        "generate.table.grammar.classes=[town]",
        "generate.table.grammar.incidence_deg=[25,45]",
        "generate.table.grammar.weights={'25': 3}",
        "caption.template.variant=LONG",
        "generate.images=40",
    )
    found = Counter(labels["incidence_deg"] for _, _, labels in images(corpus_table(config)))
    assert found == {25.0: 30, 45.0: 10}
