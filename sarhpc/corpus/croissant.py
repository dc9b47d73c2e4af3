"""Croissant 1.1 metadata of a corpus, with the GeoCroissant 1.0 terms that apply to it.

https://docs.mlcommons.org/croissant/ and http://mlcommons.org/croissant/geo/1.0: synthetic images
have no place, so there is neither `spatialCoverage` nor a coordinate reference system.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sarhpc.corpus.facts import CorpusFacts, ShardFile
from sarhpc.corpus.index import COLUMNS, DESCRIPTIONS
from sarhpc.corpus.tally import Tally

CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/geo/1.0"]

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "geocr": "http://mlcommons.org/croissant/geo/",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_TYPES = ((pa.types.is_integer, "sc:Integer"), (pa.types.is_floating, "sc:Float"),
          (pa.types.is_boolean, "sc:Boolean"))  # fmt: skip

_KEY_IN_NAME = r"^(?:.*/)?([^./]+)"
"""The key of a member of a tar: its name up to the first dot."""


def croissant_metadata(
    facts: CorpusFacts,
    tally: Tally,
    shards: Sequence[ShardFile],
    names: Sequence[str],
    index: ShardFile,
) -> dict[str, Any]:
    """The JSON-LD document of `croissant.json`: files, records, and what is known of the pixels."""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": facts.name,
        "description": (
            f"{tally.samples} synthetic SAR images with the prompts they were generated from. They "
            "show no place on Earth, carry no geolocation, and are no radar observations."
        ),
        "keywords": ["synthetic", "SAR", "synthetic-aperture radar", "text-to-image"],
        "version": "1.0.0",
        **_licence(facts),
        **_geospatial(tally),
        "distribution": [_file(index, "index.parquet", "application/x-parquet"),
                         *_archives(shards, names), *_contents(names)],
        "recordSet": [_index_records(), *([_image_records()] if names else [])],
    }  # fmt: skip


def _licence(facts: CorpusFacts) -> dict[str, Any]:
    known = [item.url or item.name for item in facts.licences]
    return {"license": known[0] if len(known) == 1 else known} if known else {}


def _geospatial(tally: Tally) -> dict[str, Any]:
    """GeoCroissant terms and radar parameters on which all images agree."""
    band, polarization = tally.common("band"), tally.common("polarization")
    name = " ".join(str(word) for word in ("SAR", band, polarization, "amplitude") if word)
    found: dict[str, Any] = {
        "geocr:bandConfiguration": {
            "@type": "geocr:BandConfiguration",
            "geocr:totalBands": 1,
            "geocr:bandNameList": [name],
        },
        "geocr:samplingStrategy": "Generated from prompts; cut from no scene.",
    }
    if tally.common("pixel_m") is not None:
        found["geocr:spatialResolution"] = {
            "@type": "sc:QuantitativeValue",
            "sc:value": tally.common("pixel_m"),
            "sc:unitText": "m",
        }
    # The STAC extension `sar` has the words for what GeoCroissant does not name.
    radar = (("sar:frequency_band", band), ("sar:polarizations", polarization),
             ("view:incidence_angle", tally.common("incidence_deg")),
             ("sarhpc:range_direction", tally.common("range_direction")))  # fmt: skip
    properties = [
        {"@type": "sc:PropertyValue", "sc:name": word, "sc:value": value}
        for word, value in radar
        if value is not None
    ]
    return {**found, **({"sc:additionalProperty": properties} if properties else {})}


def _file(file: ShardFile, name: str, encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": encoding,
        "sha256": file.sha256,
    }


def _archives(shards: Sequence[ShardFile], names: Sequence[str]) -> list[dict[str, Any]]:
    return [_file(s, n, "application/x-tar") for s, n in zip(shards, names, strict=True)]


def _contents(names: Sequence[str]) -> list[dict[str, Any]]:
    """The images in the tars."""
    if not names:
        return []
    return [
        {
            "@type": "cr:FileSet",
            "@id": "images-in-shards",
            "name": "images-in-shards",
            "containedIn": [{"@id": name} for name in names],
            "encodingFormat": "image/png",
            "includes": "*.sar.png",
        }
    ]


def _index_records() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"index/{column.name}",
            "name": column.name,
            "description": DESCRIPTIONS.get(column.name, column.name.replace("_", " ")),
            "dataType": next((word for fits, word in _TYPES if fits(column.type)), "sc:Text"),
            "source": {
                "fileObject": {"@id": "index.parquet"},
                "extract": {"column": column.name},
            },
        }
        for column in COLUMNS
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "index",
        "name": "index",
        "description": "One record per image with every parameter that made it.",
        "key": {"@id": "index/key"},
        "field": fields,
    }


def _image_records() -> dict[str, Any]:
    files = {"@id": "images-in-shards"}
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "The images, by key.",
        "key": {"@id": "images/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "images/key",
                "name": "key",
                "description": "Key of the image in the index.",
                "dataType": "sc:Text",
                "source": {
                    "fileSet": files,
                    "extract": {"fileProperty": "filename"},
                    "transform": {"regex": _KEY_IN_NAME},
                },
                "references": {"field": {"@id": "index/key"}},
            },
            {
                "@type": "cr:Field",
                "@id": "images/image",
                "name": "image",
                "description": "Amplitude image, 8-bit gray.",
                "dataType": "sc:ImageObject",
                "source": {"fileSet": files, "extract": {"fileProperty": "content"}},
            },
        ],
    }
