"""The verb `decoder`: a base model whose decoder draws speckle, and what that changed."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.config import load, to_dict
from hpc.errors import DataError
from hpc.publish import publish_bytes, publish_json
from sarhpc.cli.verbs import Verbs, add_verb, existing_path
from sarhpc.diffusion.config import DecoderConfig
from sarhpc.stages.inputs.paths import model_folder

if TYPE_CHECKING:
    from sarhpc.diffusion.crops import Images

HELD_OUT = ("val", "test")
_ROWS = {
    "E1 ENL, mode, |ln ratio|": "E1_enl",
    "E3 histogram, Jensen-Shannon, bits": "E3_jsd",
    "E3 histogram, Wasserstein-1, dB": "E3_w1",
    "E4 autocorrelation, largest difference": "E4_acf",
    "E5 log-spectral distance, dB": "E5_lsd",
    "E5 lines of a grid of 8 px, dB": "E5_lines",
}


def add_decoder(verbs: Verbs) -> None:
    """Add `decoder`."""
    decoder = add_verb(
        verbs, "decoder", "tune a model's decoder for speckle, with a report before and after"
    )
    decoder.add_argument(
        "base", help="diffusers folder, or embedded:NAME; the encoder is not changed"
    )
    decoder.add_argument("--tiles", required=True, help="folder of shards with train and val or "
                         "test, such as RUN/data/samples")  # fmt: skip
    decoder.add_argument("--out", required=True, help="folder for model, report and state")
    decoder.add_argument("--config", help="YAML of the tuning")
    decoder.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, a.b=c")
    decoder.set_defaults(handler=decoder_verb)


def decoder_verb(arguments: argparse.Namespace) -> int:
    """Tune the decoder, publish the model with it, and print the report."""
    import torch

    from sarhpc.diffusion.bundle import load_bundle, save_bundle
    from sarhpc.diffusion.decoder import decoder_report, tune_decoder

    yaml = Path(arguments.config) if arguments.config else None
    cfg = load(DecoderConfig, yaml, arguments.overrides)
    torch.set_num_threads(cfg.threads)
    folder = existing_path(model_folder(arguments.base), "a diffusers folder, or embedded:NAME")
    root = existing_path(arguments.tiles, "the folder of a run's shards, such as RUN/data/samples")
    out = Path(arguments.out)
    tiles, _ = read_tiles(root, ["train"], cfg.tiles)
    held_out, groups = read_tiles(root, HELD_OUT, cfg.tiles)
    base = load_bundle(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = base.vae.to(device)
    after = tune_decoder(cfg, before, tiles, out / "state.pt")
    report, crops = decoder_report(cfg, before, after, held_out, groups)
    publish_bytes(out / "panel.png", panel(crops))
    facts = {"base_model": arguments.base, "tiles": len(tiles), "config": to_dict(cfg)}
    publish_json(out / "report.json", {**facts, **report})
    save_bundle(replace(base, vae=after.cpu()), out / "model")
    for line in lines(report):
        print(line)
    print(f"{out / 'model'}: give it as train.base_model; {out / 'panel.png'} shows tiles")
    return 0


def read_tiles(root: Path, splits: Sequence[str], most: int) -> tuple[Images, list[str]]:
    """At most `most` SAR tiles (H, W) in 8 bits of those splits, and the flight line of each.

    They are drawn as evenly over flight lines, or else scenes, as there are tiles.

    Raises:
        DataError: there is none.
    """
    from sarhpc.stages.inputs.real_tiles import even_tiles

    shards = [path for split in splits for path in sorted((root / split).glob("*.tar"))]
    if not shards:
        raise DataError(
            f"{root} has no tiles in {' or '.join(splits)}: give the folder of a run's shards, "
            "such as RUN/data/samples; tuning needs train, and its report val or test"
        )
    tiles, groups = even_tiles(shards, most)
    return list(tiles), groups


def panel(crops: tuple[Images, Images, Images], columns: int = 8) -> bytes:
    """PNG of three rows: real crops, those through the old decoder, those through the new one."""
    import numpy as np
    from PIL import Image

    rows = [np.concatenate(list(row[:columns]), axis=1) for row in crops]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows, axis=0)).save(buffer, format="PNG")
    return buffer.getvalue()


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report as a table: before, after, and the null of distances between real tiles."""
    before, after = (report["nulls"][name] for name in ("before", "after"))
    head = f"{'held-out tiles through the autoencoder':40} {'before':>9} {'after':>9}"
    judged = "null_median" in after["E5_lsd"]
    if judged:
        head += f" {'null':>9} {'null 95 %':>9}"
    columns = ("null_median", "null_95") if judged else ()
    body = [
        f"{title:40} {before[key]['raw']:9.3f} {after[key]['raw']:9.3f}"
        + "".join(f" {after[key][column]:9.3f}" for column in columns)
        for title, key in _ROWS.items()
    ]
    return [head, *body] if judged else [head, *body, f"no null: {after['E5_lsd']['reason']}"]
