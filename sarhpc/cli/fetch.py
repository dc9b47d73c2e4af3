"""The verb `fetch`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sarhpc.cli.verbs import Verbs, add_json, add_verb, existing_path, print_json


def add_fetch(verbs: Verbs) -> None:
    """Add `fetch`."""
    fetch = add_verb(
        verbs, "fetch", "download pinned models to the shared cache, for jobs without network"
    )
    fetch.add_argument("models", nargs="*", metavar="NAME", help="sd15, sdxl, blip; none lists")
    fetch.add_argument("--to", metavar="FOLDER", help="the cache (default $SARHPC_MODELS, else "
                       "models in $HF_HOME)")  # fmt: skip
    fetch.add_argument("--from", dest="source", metavar="FOLDER", help="take the files from here")
    fetch.add_argument(
        "--deep", action="store_true", help="compare every byte of the files already there"
    )
    add_json(fetch, "machine-readable list of models")
    fetch.set_defaults(handler=fetch_verb)


def fetch_verb(arguments: argparse.Namespace) -> int:
    """Fetch models to the shared cache; without a name list them."""
    from sarhpc.stages.inputs.base_models import (
        MODELS,
        cache_root,
        fetch,
        model_named,
        require_whole,
    )

    root = Path(arguments.to) if arguments.to else cache_root()
    source = None
    if arguments.source:
        source = existing_path(arguments.source, "the folder that holds the files of the model")
    for model in map(model_named, arguments.models):
        print(f"{model.name}: {model.repository} at {model.revision[:12]}, licence {model.licence}")
        print(f"  {model.licence_url}", flush=True)
        folder = fetch(model, root, source)
        if arguments.deep:
            require_whole(model, folder, deep=True)
        name = str(folder) if arguments.to else f"fetched:{model.name}"
        print(f"  {folder}; use it with {model.use}={name}")
    if not arguments.models and arguments.json:
        print_json([
            {"name": model.name, "repository": model.repository, "revision": model.revision,
             "licence": model.licence, "use": model.use,
             "folder": root / model.name if (root / model.name).is_dir() else None}
            for model in MODELS
        ])  # fmt: skip
    elif not arguments.models:
        for model in MODELS:
            there = (root / model.name).is_dir()
            print(f"{model.name:<6} {model.repository}  {model.licence}"
                  f"{f'  in {root}' if there else ''}")  # fmt: skip
        print("fetch one with: sarhpc fetch NAME [--to FOLDER] [--from FOLDER]")
    return 0
