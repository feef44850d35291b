"""What the site has beyond docs/: the pages of deploy/, the recipes' reference from their schema, and links that fit.

Run by mkdocs (`mkdocs build`); knows nothing of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from capfilt.cli.schema import Kind, of

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_ABOUT = {
    Kind.BOOTSTRAP: "What `capfilt bootstrap` takes; `capfilt recipes show bootstrap` prints all of it, to copy.",
    Kind.PRETRAIN: "What `capfilt pretrain` and `capfilt finetune` take; finetuning's task is `captioner`, `filter`.",
    Kind.ROUNDS: "What `capfilt rounds` takes: sections `captioner`, `filter` and `pretrain` are those of training, "
    "and `bootstrap` is a recipe of its own.",
    Kind.SERVICE: "What `capfilt serve --set` takes.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie or arise elsewhere."""
    for page in sorted((ROOT / "deploy").glob("*.md")):
        files.append(File.generated(config, f"deploy/{page.name}", content=page.read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference/recipes.md", content=_recipes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of the site become names of files; those between docs/ and deploy/ lead to the pages here."""
    here = page.file.src_uri
    folder = (ROOT / here if here.startswith("deploy/") else ROOT / "docs" / here).parent

    def fitting(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if not path or ":" in path:
            return found[0]
        file = (folder / path).resolve()
        if not file.is_relative_to(ROOT) or (page.file.src_uri == "reference/recipes.md"):
            return found[0]
        name = file.relative_to(ROOT).as_posix()
        place = name.removeprefix("docs/") if name.startswith("docs/") else name if name.startswith("deploy/") else ""
        if place.endswith(".md") or name.startswith("docs/"):
            return f"[{text}]({'../' * here.count('/')}{place}{hash_}{anchor})"
        return text if name in text else f"{text} (`{name}`)" if "`" not in text else text

    return _LINK.sub(fitting, markdown)


def _recipes() -> str:
    pieces = [
        "# Recipes\n\nEvery field of every recipe, from the classes that check it. `capfilt schema KIND` prints the "
        "same as JSON Schema: with `# yaml-language-server: $schema=bootstrap.schema.json` as a recipe's first line, "
        "editors complete and check it.\n"
    ]
    for kind, about in _ABOUT.items():
        pieces += [f"## {'training' if kind is Kind.PRETRAIN else kind}\n\n{about}\n", *_sections(of(kind), kind)]
    return "\n".join(pieces)


def _sections(schema: dict[str, Any], kind: Kind) -> Iterator[str]:
    definitions = schema["$defs"]
    told = {"Recipe", "TrainConfig"} if kind is Kind.ROUNDS else set()

    def section(name: str, fields: dict[str, Any]) -> Iterator[str]:
        inner = {field: ref for field, value in fields.items() if (ref := _ref(value)) in definitions}
        plain = {field: value for field, value in fields.items() if field not in inner}
        if plain:
            yield (f"### {name}\n\n" if name else "") + _table(plain)
        for field, ref in inner.items():
            if ref not in told:
                yield from section(f"{name}.{field}".lstrip("."), definitions[ref]["properties"])

    yield from section("", schema["properties"])


def _table(fields: dict[str, Any]) -> str:
    lines = ["| field | type | default | what |", "|---|---|---|---|"]
    for name, value in fields.items():
        default = "" if "default" not in value else f"`{_yaml(value['default'])}`"
        lines.append(f"| `{name}` | {_type(value)} | {default} | {_cell(value['description'])} |")
    return "\n".join(lines) + "\n"


def _ref(value: dict[str, Any]) -> str:
    return str(value["anyOf"][0].get("$ref", "")).rpartition("/")[2] if "anyOf" in value else ""


def _type(value: dict[str, Any]) -> str:
    kinds = value.get("anyOf", [value])
    return " or ".join(_one(kind) for kind in kinds)


def _one(kind: dict[str, Any]) -> str:
    if "enum" in kind or "const" in kind:
        return " ".join(f"`{choice}`" for choice in kind.get("enum", [kind.get("const")]))
    if kind.get("type") == "array":
        items = kind.get("items", {})
        return f"list of {items.get('$ref', '').rpartition('/')[2].removesuffix('Config').lower() or _one(items)}"
    low = kind.get("minimum", kind.get("exclusiveMinimum"))
    high = kind.get("maximum", kind.get("exclusiveMaximum"))
    name = str(kind.get("type", ""))
    if low is None and high is None:
        return name
    open_ = "(" if "exclusiveMinimum" in kind or low is None else "["
    bounds = ("" if low is None else f"{low:g}", "" if high is None else f"{high:g}")
    return f"{name} {open_}{bounds[0] or '-∞'}, {bounds[1] or '∞'}{']' if high is not None else ')'}"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if value != "" else '""'


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
