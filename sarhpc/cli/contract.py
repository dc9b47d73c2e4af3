"""The verb `contract`: what a pixel of a model's images means, shown or written from its tiles."""

from __future__ import annotations

import argparse
import sys

from hpc.errors import ConfigError, DataError
from hpc.publish import publish_json
from hpc.shell import quoted
from sarhpc.cli.verbs import Verbs, add_json, add_verb, existing_path, print_json
from sarhpc.stages.inputs.paths import model_folder


def add_contract(verbs: Verbs) -> None:
    """Add `contract`."""
    contract = add_verb(verbs, "contract", "show what a pixel of a model's images means")
    contract.add_argument(
        "model", help="diffusers folder, such as RUN/export/model, or embedded:NAME"
    )
    contract.add_argument("--tiles", metavar="FOLDER", help="folder of the shards it was trained "
                          "on, such as RUN/data/samples/train: write the contract of a model that "
                          "has none")  # fmt: skip
    add_json(contract)
    contract.set_defaults(handler=contract_verb)


def contract_verb(arguments: argparse.Namespace) -> int:
    """Print the contract; with tiles derive it from them, and publish it beside the model."""
    from sarhpc.shards.contract import describe, read_contract, sidecar
    from sarhpc.shards.tile_contract import contract_of_shards

    model = existing_path(model_folder(arguments.model), "a diffusers folder").absolute()
    if not (model / "model_index.json").is_file():
        exported = model / "export" / "model"
        known = exported if (exported / "model_index.json").is_file() else "a diffusers folder"
        raise ConfigError(f"{model} is no model (no model_index.json); give {known}")
    found = read_contract(model)
    if arguments.tiles is not None:
        if found is not None:
            raise DataError(f"{model} has a contract; `sarhpc contract {quoted(model)}` shows it")
        tiles = existing_path(arguments.tiles, "the folder of the shards it was trained on")
        found = contract_of_shards(sorted(tiles.rglob("*.tar")))
        # Beside the folder: its digest is recorded, and stays what it is.
        publish_json(sidecar(model), found.to_json())
        print(f"written: {sidecar(model)}", file=sys.stderr if arguments.json else sys.stdout)
    if found is None:
        raise DataError(
            f"{model} has no contract; if you have the tiles it was trained on: "
            f"sarhpc contract {quoted(model)} --tiles FOLDER"
        )
    if arguments.json:
        print_json(found.to_json())
        return 0
    for name, value in describe(found).items():
        print(f"{name:16} {value}")
    return 0
