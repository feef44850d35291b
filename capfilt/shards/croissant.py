"""``croissant.json``: the data set in Croissant 1.0, the JSON-LD that data set searches and loaders read.

Every shard with its digest, and how pictures and captions are found in it. Knows the manifest only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "croissant.json"
LICENCE = "each-picture-its-own"
"""Each picture keeps its own licence, which nobody has asked for."""

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
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
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
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
_ENCODINGS = {"tar": "application/x-tar", "parquet": "application/x-parquet"}


def croissant(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a finished data set.

    Args:
        manifest: as :func:`capfilt.shards.commit.write_manifest` returns it.

    Returns:
        JSON-LD as plain values; equal manifests give equal ones. Paths are relative to the data set's folder.
    """
    shards = sorted(manifest["shards"], key=lambda shard: str(shard["name"]))
    kinds = [kind for kind in _ENCODINGS if any(shard["name"].endswith(f".{kind}") for shard in shards)]
    totals = manifest["totals"]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "capfilt",
        "description": (
            f"{totals['kept']:,} pictures with captions that a filter let pass, out of {totals['rows']:,} rows; "
            f"made by capfilt {manifest['capfilt']}, by captioning and filtering (BLIP, arXiv:2201.12086)."
        ),
        "datePublished": manifest["created"],
        "version": "1.0.0",
        "license": LICENCE,
        "citeAs": "Li et al. 2022, BLIP: Bootstrapping Language-Image Pre-training, arXiv:2201.12086",
        "isBasedOn": _based_on(manifest["source"]),
        "distribution": [_file(shard) for shard in shards] + [s for kind in kinds for s in _SETS[kind](shards)],
        "recordSet": [records for kind in kinds for records in _RECORDS[kind]],
    }


def source_files(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The files that a source lists, each with ``name`` and ``digest``; of joined sources those of each, in order.

    Args:
        source: as its ``describe()`` or a manifest tells it.
    """
    listed = [file for one in (source, *source.get("sources", ())) for file in one.get("files", ())]
    return [file for file in listed if isinstance(file, Mapping) and {"name", "digest"} <= set(file)]


def _based_on(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"@type": "sc:CreativeWork", "name": str(file["name"]), "identifier": f"capfilt:{file['digest']}"}
        for file in source_files(source)
    ]


def _file(shard: Mapping[str, Any]) -> dict[str, Any]:
    name = str(shard["name"])
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name.rpartition("/")[2],
        "contentUrl": name,
        "contentSize": f"{shard['size']} B",
        "encodingFormat": _ENCODINGS[name.rpartition(".")[2]],
        "sha256": shard["sha256"],
    }


def _tar_sets(shards: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    tars = [{"@id": shard["name"]} for shard in shards if shard["name"].endswith(".tar")]
    return [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "containedIn": tars,
            "encodingFormat": encoding,
            "includes": includes,
        }
        for name, encoding, includes in (
            ("tar-pictures", "image/jpeg", ["*.jpg", "*.png", "*.webp"]),
            ("tar-captions", "text/plain", ["*.txt"]),
        )
    ]


def _parquet_sets(shards: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileSet",
            "@id": "parquet-shards",
            "name": "parquet-shards",
            "encodingFormat": "application/x-parquet",
            "includes": "shards/*.parquet",
        }
    ]


_SETS = {"tar": _tar_sets, "parquet": _parquet_sets}


def _field(records: str, name: str, kind: str, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": name,
        "dataType": kind,
        "source": dict(source),
    }


def _in_tar(file_set: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = {"fileSet": {"@id": file_set}, "extract": {"fileProperty": what}}
    if what == "filename":
        found["transform"] = {"regex": r"^(.*)\.[a-z]+$"}
    return found


def _in_parquet(column: str) -> dict[str, Any]:
    return {"fileSet": {"@id": "parquet-shards"}, "extract": {"column": column}}


_RECORDS: dict[str, list[dict[str, Any]]] = {
    "tar": [
        {
            "@type": "cr:RecordSet",
            "@id": "pictures",
            "name": "pictures",
            "description": "One record a picture of the tars; KEY.json beside it has all its captions.",
            "key": {"@id": "pictures/key"},
            "field": [
                _field("pictures", "key", "sc:Text", _in_tar("tar-pictures", "filename")),
                _field("pictures", "image", "sc:ImageObject", _in_tar("tar-pictures", "content")),
            ],
        },
        {
            "@type": "cr:RecordSet",
            "@id": "captions",
            "name": "captions",
            "description": "The best kept caption of each picture of the tars; its key is the picture's.",
            "key": {"@id": "captions/key"},
            # The keys are equal, but are not told as `references`: mlcroissant 1.1 then decodes all pictures into
            # memory before it gives the first caption.
            "field": [
                _field("captions", "key", "sc:Text", _in_tar("tar-captions", "filename")),
                _field("captions", "caption", "sc:Text", _in_tar("tar-captions", "content")),
            ],
        },
    ],
    "parquet": [
        {
            "@type": "cr:RecordSet",
            "@id": "parquet",
            "name": "parquet",
            "description": "One record a picture, with its best kept caption; the column captions has all of them.",
            "field": [
                _field("parquet", "key", "sc:Text", _in_parquet("key")),
                _field(
                    "parquet",
                    "image",
                    "sc:ImageObject",
                    {**_in_parquet("image"), "transform": {"jsonPath": "bytes"}},
                ),
                _field("parquet", "caption", "sc:Text", _in_parquet("caption")),
                _field("parquet", "url", "sc:Text", _in_parquet("url")),
            ],
        }
    ],
}
