"""``capfilt models``: what there is, what a model is made of, and released BLIP weights in and out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from capfilt.cli import completing
from capfilt.cli.help import epilog
from capfilt.cli.options import HELP_NAMES, JsonOption
from capfilt.cli.terminal import table
from capfilt.errors import ModelError

app = typer.Typer(
    help="List models, show one, average several, import and export released BLIP weights.", context_settings=HELP_NAMES
)

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name of the list, or a folder.", autocompletion=completing.models),
]
LAYOUTS = ("original", "huggingface")


@app.callback(invoke_without_command=True)
def default(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models of the catalogue. Wherever a model is asked for, a folder does as well as a name."""
    if context.invoked_subcommand is None:
        list_(as_json)


@app.command("list", epilog=epilog("models list"))
def list_(as_json: JsonOption = False) -> None:
    """List the models of the catalogue. Wherever a model is asked for, a folder does as well as a name."""
    from capfilt import catalog
    from capfilt.med.config import MEDConfig

    there = {name: catalog.model_folder(name) for name in catalog.models()}
    if as_json:
        told = [{"name": name, "folder": str(at), "weights_bytes": _bytes(at)} for name, at in there.items()]
        typer.echo(json.dumps(told, indent=1))
        return
    rows = []
    for name, folder in there.items():
        config = MEDConfig.load(folder)
        vision, text = config.vision, config.text
        picture = f"{vision.image_size} px, {vision.width} x {vision.depth}"
        rows.append([name, picture, f"{text.width} x {text.depth}", _weights(folder)])
    table("Models", ["name", "vision", "text", "weights"], rows)


@app.command("show", epilog=epilog("models show"))
def show(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what a model is made of.

    Its architecture, what it holds, and how many parameters, part by part.
    """
    import torch

    from capfilt import catalog
    from capfilt.med.config import MEDConfig, vocabulary
    from capfilt.med.model import MED
    from capfilt.med.tokenizer import MEDTokenizer

    folder = catalog.model_folder(model)
    config = MEDConfig.load(folder)
    if vocabulary(folder).is_file():
        med = MED.load(folder) if _weights_file(folder) else _empty(config, MEDTokenizer.load(folder), torch)
    else:
        med = None
    vision, text = config.vision, config.text
    rows: list[list[Any]] = [
        ["folder", str(folder)],
        ["weights", _weights(folder)],
        ["holds", {"both": "captioner and filter", "captioner": "captioner", "filter": "filter"}[config.holds]],
        ["vision", f"ViT {vision.width} x {vision.depth}, {vision.heads} heads, {vision.image_size} px"],
        ["text", f"{text.width} x {text.depth}, {text.heads} heads, {text.vocab_size} word pieces"],
        ["shared", config.shared],
        ["ITC space", "none" if config.holds == "captioner" else str(config.embed_dim)],
        ["prompt", repr(config.prompt)],
    ]
    parts: dict[str, int] = {}
    if med is not None:
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in med.named_children()}
    total = sum(p.numel() for p in med.parameters()) if med is not None else None
    if as_json:
        told = {"folder": str(folder), "weights_bytes": _bytes(folder), "config": dataclasses.asdict(config)}
        typer.echo(json.dumps(told | {"parameters": parts, "parameters_in_all": total}, indent=1))
        return
    table("Model", ["", ""], rows)
    if total is not None:
        counts = [[name, f"{count:,}"] for name, count in [*parts.items(), ("all", total)]]
        table("Parameters", ["part", "parameters"], counts)


def _empty(config: Any, tokenizer: Any, torch: Any) -> Any:
    from capfilt.med.model import MED

    with torch.device("meta"):
        return MED(config, tokenizer)


def _weights_file(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file()


@app.command("import", epilog=epilog("models import"))
def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A .pth or folder, a hub id or a URL.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to write.")],
    vocab: Annotated[
        str | None, typer.Option("--vocab", help="Folder or hub id with BERT's vocab.txt; else beside the weights.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=16, help="Side in px, if to be another.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="What its captions begin with.")] = "a picture of ",
) -> None:
    """Write released BLIP weights as a model folder.

    Every weight finds its place, or an error lists what does not.
    """
    from capfilt.med import hub
    from capfilt.med.released import import_model

    if (dest / "model.yaml").exists():
        raise ModelError("there is a model already", where=str(dest), mend="Name another folder, or remove it.")
    path = hub.obtain(source)
    beside = path if path.is_dir() else path.parent
    words = hub.obtain(vocab) if vocab else beside if (beside / "vocab.txt").is_file() else hub.obtain(BERT)
    med = import_model(path, words if words.is_dir() else words.parent, dest, image_size=image_size, prompt=prompt)
    total = sum(p.numel() for p in med.parameters())
    typer.echo(f"{total:,} parameters, {med.config.holds}, {med.config.vision.image_size} px")
    typer.echo(f"model  {dest}")


BERT = "google-bert/bert-base-uncased"
"""Whose vocabulary the released weights use; ``.pth`` files come without."""


@app.command("export", epilog=epilog("models export"))
def export(
    model: ModelArgument,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A .pth file, or a folder for huggingface.")],
    layout: Annotated[str, typer.Option("--layout", help="original or huggingface.")] = "huggingface",
    as_: Annotated[str | None, typer.Option("--as", help="captioner or filter, for huggingface.")] = None,
) -> None:
    """Write a model for other code: Salesforce's, or transformers."""
    from capfilt import catalog
    from capfilt.med.model import MED
    from capfilt.med.released import export_huggingface, export_original

    if layout not in LAYOUTS:
        raise ModelError(f"no layout {layout}", where="--layout", mend=f"Say {' or '.join(LAYOUTS)}.")
    if dest.exists():
        raise ModelError("is there already", where=str(dest), mend="Name another place, or remove it.")
    med = MED.load(catalog.model_folder(model))
    if layout == "original":
        export_original(med, dest)
    else:
        holds = as_ or med.config.holds
        if holds not in ("captioner", "filter"):
            raise ModelError(f"holds {holds}", where="--as", mend="Say --as captioner or --as filter.")
        export_huggingface(med, dest, holds="captioner" if holds == "captioner" else "filter")
    typer.echo(f"model  {dest}")


@app.command("average", epilog=epilog("models average"))
def average_(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to write.")],
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Two or more, by name or folder.", autocompletion=completing.models),
    ],
) -> None:
    """Average models finetuned from the same one, weight by weight.

    The model soup of Wortsman et al. (2022): often better on what is new than each of them, and no slower.
    """
    from capfilt import catalog

    if (dest / "model.yaml").exists():
        raise ModelError("there is a model already", where=str(dest), mend="Name another folder, or remove it.")
    if len(models) < 2:
        raise ModelError("one model is no average", where="MODEL", mend="Name two or more.")
    folders = [catalog.model_folder(model) for model in models]
    from capfilt.med.soup import average

    med = average(folders)
    med.save(dest)
    typer.echo(f"mean   of {len(models)} models, {sum(p.numel() for p in med.parameters()):,} parameters")
    typer.echo(f"model  {dest}")


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _weights(folder: Path) -> str:
    size = _bytes(folder)
    return f"{size / 1e6:.1f} MB" if size else "none: an architecture to train"
