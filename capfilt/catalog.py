"""Where the models and recipes that come with the project lie: in a checkout and in an installed wheel alike.

In a checkout ``models/`` and ``pipelines/`` stand beside the package; a wheel carries them inside it, under
``capfilt/_shipped``. Knows names and folders; does not open what is in them.
"""

from __future__ import annotations

from pathlib import Path

from capfilt.errors import ModelError, RecipeError, meant

_PACKAGE = Path(__file__).resolve().parent
MODEL_FILE = "model.yaml"
"""What makes a folder a model: its architecture."""


def model_folder(name_or_path: str) -> Path:
    """The folder of a model: of an existing path, else ``models/NAME`` or ``models/NAME/PART``.

    Raises:
        ModelError: neither a folder nor a name of the catalogue; lists the names there are.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return path
    found = _inside(_folder("models"), name_or_path)
    if found is not None and found.is_dir():
        return found
    raise ModelError("no model of this name and no such folder", where=name_or_path, mend=_mend(name_or_path, models()))


def absolute(model: str | None) -> str | None:
    """A folder's absolute path, since workers stand elsewhere; a name of the catalogue as it is."""
    path = Path(model or "").expanduser()
    return str(path.resolve()) if model and path.is_dir() else model


def recipe_file(name_or_path: str) -> Path:
    """The file of a recipe: an existing path, else ``pipelines/NAME.yaml`` (``.yaml`` may be left out).

    Raises:
        RecipeError: neither a file nor a name of the catalogue; lists the names there are.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_file():
        return path
    for name in (name_or_path, f"{name_or_path}.yaml"):
        found = _inside(_folder("pipelines"), name)
        if found is not None and found.is_file() and found.suffix == ".yaml":
            return found
    raise RecipeError(
        "no recipe of this name and no such file", where=name_or_path, mend=_mend(name_or_path, recipes())
    )


def models() -> list[str]:
    """Sorted names of the models in the catalogue: ``NAME`` or ``NAME/PART``, each with a ``model.yaml``."""
    root = _folder("models")
    found = [*root.glob(f"*/{MODEL_FILE}"), *root.glob(f"*/*/{MODEL_FILE}")]
    return sorted(file.parent.relative_to(root).as_posix() for file in found)


def recipes() -> list[str]:
    """Sorted names of the recipes in the catalogue, without ``.yaml``."""
    root = _folder("pipelines")
    found = [*root.glob("*.yaml"), *root.glob("*/*.yaml")]
    return sorted(file.relative_to(root).with_suffix("").as_posix() for file in found)


def sample() -> Path:
    """The folder of the bundled sample: a table of URLs and titles, and its pictures.

    >>> import capfilt
    >>> sorted(file.name for file in capfilt.sample().iterdir())
    ['README.md', 'images', 'pairs.csv']

    Raises:
        RecipeError: this installation has none.
    """
    folder = _folder("pipelines") / "sample"
    if not folder.is_dir():
        raise RecipeError(
            "the bundled sample is not there", where=str(folder), mend="Install capfilt again, or clone it whole."
        )
    return folder


def _folder(kind: str) -> Path:
    shipped = _PACKAGE / "_shipped" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def _inside(root: Path, name: str) -> Path | None:
    """``root/name``, or None where the name would climb out of the root."""
    pieces = name.split("/")
    if Path(name).is_absolute() or "\\" in name or any(piece in {"", ".", ".."} for piece in pieces):
        return None
    return root / name


def _mend(wanted: str, names: list[str]) -> str:
    return f"{meant(wanted, names)}The catalogue has: {', '.join(names) or 'nothing'}. Or give a path."
