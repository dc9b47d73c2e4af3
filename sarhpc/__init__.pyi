from sarhpc.api.ablation import ablation
from sarhpc.api.evaluation import evaluate
from sarhpc.api.models import Generated, Model, caption, generate, load_model
from sarhpc.api.reading import open_dataset
from sarhpc.api.runs import Results, Run
from sarhpc.api.tiles import Tiles, cut_tiles
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.stac_catalog import open_archive

__all__ = [
    "Generated",
    "Model",
    "Results",
    "Run",
    "Tiles",
    "ablation",
    "caption",
    "catalog_directory",
    "cut_tiles",
    "evaluate",
    "generate",
    "load_model",
    "open_archive",
    "open_dataset",
    "open_sar",
]

__version__: str
