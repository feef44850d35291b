"""The data set's card: README.md with the front matter that the Hugging Face Hub reads; ``croissant.json`` beside it.

Both follow from the manifest alone, so equal manifests give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from capfilt.shards.croissant import LICENCE, NAME, croissant, source_files
from capfilt.storage import Store

_SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]
_SIZES += [(100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"), (10_000_000_000, "1B<n<10B")]
_FILES = 20
"""So many of the source's files are listed."""
_ORIGINS = {"web": "scraped with the picture", "synthetic": "made by the captioner", "human": "written by annotators"}


def write_cards(store: Store, *, anew: bool) -> dict[str, Any]:
    """Writes ``README.md`` and ``croissant.json`` beside the manifest: ``anew``, else those that are missing.

    Returns:
        The manifest.
    """
    manifest: dict[str, Any] = store.read_json("manifest.json")
    if anew or not store.exists("README.md"):
        store.write("README.md", dataset_card(manifest).encode())
    if anew or not store.exists(NAME):
        store.write_json(NAME, croissant(manifest))
    return manifest


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
        manifest: as :func:`capfilt.shards.commit.write_manifest` returns it.

    Returns:
        Markdown with YAML front matter; says what was done, to how much, and what it is not.
    """
    kinds = _kinds(manifest)
    sections = [
        _front(manifest, kinds),
        "# An image-text data set made by CapFilt\n",
        _what(manifest),
        _refiltered(manifest),
        _books(manifest),
        _noise(manifest),
        _models(manifest),
        _provenance(manifest),
        _loading(kinds),
        _LIMITS,
    ]
    return "\n".join(section for section in sections if section)


def _kinds(manifest: Mapping[str, Any]) -> list[str]:
    endings = {shard["name"].rpartition(".")[2] for shard in manifest["shards"]}
    return [kind for kind in ("tar", "parquet") if kind in endings]


def _front(manifest: Mapping[str, Any], kinds: list[str]) -> str:
    kept = manifest["totals"]["kept"]
    front: dict[str, Any] = {
        "license": "other",
        "license_name": LICENCE,
        "task_categories": ["image-to-text", "text-to-image"],
        "size_categories": [next((name for size, name in _SIZES if kept < size), "10B<n<100B")],
        "tags": ["capfilt", "captions", *({"tar": "webdataset", "parquet": "parquet"}[kind] for kind in kinds)],
    }
    if kinds:
        # `datasets` reads all configurations of a card with one and the same reader, so tables beside tars are none.
        files = [{"split": "train", "path": f"shards/*.{kinds[0]}"}]
        front["configs"] = [{"config_name": "default", "data_files": files}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"


def _what(manifest: Mapping[str, Any]) -> str:
    totals, source = manifest["totals"], manifest["source"]
    texts = sum(totals["texts_kept"].values())
    return (
        f"{totals['rows']:,} rows of a source ({_cell(source.get('kind', 'unknown'))}) went in; {totals['kept']:,} "
        f"pictures with {texts:,} captions came out. A captioner wrote captions for the pictures, and a filter "
        "judged every text, scraped or made, by how well it matches its picture; what does not match was removed "
        "(captioning and filtering, *BLIP*, arXiv:2201.12086). The recipe says if one of the two was left out.\n\n"
        f"Made by capfilt {_cell(manifest['capfilt'])} on {_cell(manifest['created'])}. `recipe.yaml` repeats the run; "
        "`pairs/` lists every row with its reason, and `manifest.json` the digests of all files.\n"
    )


def _refiltered(manifest: Mapping[str, Any]) -> str:
    again = manifest.get("refilter")
    if not again:
        return ""
    return (
        f"Judged anew from the stored scores of {_cell(again['from'])}, with no model run: {_cell(again['rule'])}. Of "
        f"its {again['before']['kept']:,} pictures {manifest['totals']['kept']:,} stay.\n"
    )


def _books(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    rows = [("kept", totals["kept"]), *((f"dropped: {reason}", count) for reason, count in totals["dropped"].items())]
    return "## The books\n\n" + _table(("", "rows"), [*rows, ("in", totals["rows"])])


def _noise(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    rows = [
        (
            _ORIGINS.get(origin, origin),
            scored,
            totals["texts_kept"].get(origin, 0),
            f"{manifest['noise_ratio'][origin]:.1%}",
        )
        for origin, scored in totals["texts"].items()
        if manifest["noise_ratio"].get(origin) is not None
    ]
    if not rows:
        return ""
    return "## Texts\n\n" + _table(("texts", "judged", "kept", "noise ratio (share removed)"), rows)


def _models(manifest: Mapping[str, Any]) -> str:
    rows = [(role, _told(model)) for role, model in manifest["models"].items()]
    return "## Models\n\n" + _table(("role", "model"), rows) if rows else ""


def _provenance(manifest: Mapping[str, Any]) -> str:
    """Where the rows came from: the source's files with their digests, and the recipe's."""
    files = source_files(manifest["source"])
    rows = [(file["name"], file.get("rows", ""), file["digest"]) for file in files[:_FILES]]
    more = f"\nAnd {len(files) - _FILES:,} more, in `manifest.json`.\n" if len(files) > _FILES else ""
    recipe = f"\nThe recipe's digest is `{_cell(manifest['recipe_digest'])}`.\n"
    table = _table(("file of the source", "rows", "digest"), rows) if files else "A source without listed files.\n"
    return "## Provenance\n\n" + table + more + recipe


def _told(model: Any) -> str:
    if isinstance(model, Mapping):
        return ", ".join(f"{key} {value}" for key, value in model.items() if isinstance(value, str | int | float))
    return str(model)


def _loading(kinds: list[str]) -> str:
    if not kinds:
        return "## Loading\n\nNo picture was kept, so there are no shards.\n"
    return "## Loading\n\n```python\n" + "\n".join(_EXAMPLES[kind] for kind in kinds) + "```\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---:" if at else "---" for at in range(len(head))), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(value: Any) -> str:
    # Names of models and sources are a user's or a stranger's: they may not break the table or add markup.
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return "".join({"|": "\\|", "<": "&lt;", "\n": " ", "`": "'"}.get(char, char) for char in text)


_EXAMPLES = {
    "tar": """\
import glob, json
import webdataset as wds
for sample in wds.WebDataset(sorted(glob.glob("shards/*.tar")), shardshuffle=False):
    image, caption, everything = sample["jpg"], sample["txt"].decode(), json.loads(sample["json"])

from datasets import load_dataset
data = load_dataset("webdataset", data_files="shards/*.tar", split="train")
""",
    "parquet": """\
from datasets import load_dataset
data = load_dataset("parquet", data_files="shards/*.parquet", split="train")  # image, caption, captions, url, ...
""",
}

_LIMITS = """\
`caption` (or `.txt`) is the kept caption with the highest score; `captions` (in `.json`) are all, kept and rejected,
with their origin, scores and verdict.

## Limits

- Pictures and scraped texts belong to their owners and keep their licences; only addresses say where they came from.
- The filter errs in both directions: captions here may be wrong, and good ones are among the rejected.
- Captions that a model made repeat what it learned, its mistakes and biases included.
- Nothing was done to find unsafe or personal content, unless the recipe says so.
"""
