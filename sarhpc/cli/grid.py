"""The verb `grid`: a picture of what a model makes of some prompts and seeds."""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

from hpc.errors import ConfigError
from hpc.publish import publish_json, publishing
from hpc.store.tree import digest_tree
from sarhpc.cli.verbs import Verbs, add_verb


def add_grid(verbs: Verbs) -> None:
    """Add `grid`."""
    grid = add_verb(verbs, "grid", "sample a grid of prompts and seeds")
    grid.add_argument("model", help="diffusers folder, such as RUN/export/model, or embedded:NAME")
    grid.add_argument("--prompt", action="append", required=True, help="a row; may be repeated")
    grid.add_argument("--seed", action="append", type=int, help="a column (default 0 1 2 3)")
    grid.add_argument("--between", type=int, default=0, metavar="N",
                      help="N more columns, interpolated between consecutive seeds")  # fmt: skip
    grid.add_argument("--steps", type=int, default=25, help="denoising steps (default 25)")
    grid.add_argument("--guidance", type=float, default=7.5, help="guidance scale (default 7.5)")
    grid.add_argument("--out", required=True, help="PNG; a JSON of the same name records how it "
                      "was made, and how close the prompts' embeddings are")  # fmt: skip
    grid.set_defaults(handler=grid_verb)


def grid_verb(arguments: argparse.Namespace) -> int:
    """Sample the grid; write how it was made and how similar its prompts are to a JSON file."""
    from sarhpc.api.models import load_model

    out = Path(arguments.out)
    if out.suffix != ".png":
        raise ConfigError(f"--out {out}: give a file that ends in .png")
    model = load_model(arguments.model, steps=arguments.steps, guidance=arguments.guidance)
    pipeline, cfg = model.pipeline, model.config
    from sarhpc.diffusion.contact_sheet import contact_sheet
    from sarhpc.generation.grid import columns, prompt_similarity, sample_grid

    across = columns(arguments.seed or [0, 1, 2, 3], arguments.between)
    titles = [column.title for column in across]
    images = sample_grid(pipeline, cfg, arguments.prompt, across)
    picture = contact_sheet(images, arguments.prompt, titles)
    with publishing(out) as file:
        picture.save(file, format="PNG")
    cosines = prompt_similarity(pipeline, arguments.prompt)
    facts = {
        "synthetic": True,
        "model": arguments.model,
        "model_sha256": digest_tree(model.folder).sha256,
        "prompts": arguments.prompt,
        "columns": titles,
        "steps": cfg.steps,
        "guidance": cfg.guidance,
        "scheduler": cfg.scheduler,
        "closeness": [[round(float(value), 4) for value in row] for row in cosines],
    }
    publish_json(out.with_suffix(".json"), facts)
    for one, other in combinations(range(len(arguments.prompt)), 2):
        pair = f"{arguments.prompt[one]!r} and {arguments.prompt[other]!r}"
        print(f"{cosines[one, other]:.3f}  {pair}")
    print(f"{out}: {len(arguments.prompt)} prompts by {len(titles)} columns")
    return 0
