"""Prompt tables with damaged bytes: planned, or refused by name."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from case_counts import each
from file_mutations import mutated
from isolated_cases import problem_of

from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.prompts.config import PromptTableConfig
from sarhpc.generation.prompts.images import planned_images
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompt_tables import corpus_table

ROWS = [
    {"prompt": "a river", "weight": 1.5, "seed": 7, "site": "north", "class": "water"},
    {"prompt": "a town, seen from far", "weight": 2.0, "seed": None, "site": "x", "class": "town"},
    {"prompt": "une forêt", "weight": 0.5, "seed": None, "site": None, "class": "forest"},
]


def parquet() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), data)
    return data.getvalue()


FILES = {
    "p.csv": 'prompt,weight,seed,site\na river,1.5,7,north\n"a town, far",2,,x\nbôis,,,\n'.encode(),
    "f.csv": b"class,relation,count\nforest,with houses,3\ntown,none,2\n",
    "p.jsonl": b'{"prompt": "a river", "weight": 1.5}\n{"prompt": "a wood", "site": "x"}\n',
    "p.parquet": parquet(),
}


def read(path: Path) -> None:
    table = PromptTableConfig(file=str(path), max_per_prompt=30)
    config = RunConfig(generate=GenerateConfig(table=table, images_per_prompt=2))
    corpus = corpus_table(config)
    if corpus.images > 100:
        return
    for image in planned_images(corpus.table, corpus.counts, corpus.fields, 0):
        image.request(0)


def check(name: str, random: Random) -> None:
    _, data = mutated(FILES[name], str(random.random()), FILES["p.csv"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        problem = problem_of(lambda: read(path), [name])
    assert problem is None, (problem, data[:2000])


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_table_is_refused_by_name(name: str) -> None:
    each(60, lambda random: check(name, random))


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_many_damaged_tables(name: str) -> None:
    each(1500, lambda random: check(name, random))
