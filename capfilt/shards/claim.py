"""Whose folder it is: the recipe, plan and models that made a destination, and what differs from those at hand.

Knows JSON values and a store; knows not what the fields of a recipe mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from capfilt.errors import DestinationError
from capfilt.shards.marker import FORMAT_VERSION
from capfilt.storage import Store

CHANGES = "changes.json"
MODELS = "models.json"
"""By role, the name and the digest of each model that makes the destination."""
_RECIPE_HEAD = "# The resolved recipe of the run that made this folder.{taken}\n"
_TAKEN = " `capfilt {job} --recipe` takes it as it is."


_OTHER_INPUT = "the source's files or their rows have changed since"


def claim(
    store: Store,
    recipe: Mapping[str, Any],
    plan_digest: str,
    *,
    job: str | None = "bootstrap",
    on_changes: Callable[[list[str]], None] | None = None,
    begun: bool = True,
) -> None:
    """Makes the destination this recipe's own, or checks that it is.

    The first run writes ``plan.json`` and ``recipe.yaml``; a later one must bring the same recipe and plan. Leave
    out of ``recipe`` what does not change the result (runner, workers), so that another machine may go on.

    Args:
        store: the destination.
        recipe: JSON values.
        plan_digest: of the plan.
        job: the command that takes the recipe; None if none does.
        on_changes: told, in words, of all differences, and only then the destination is this recipe's; None refuses.
        begun: whether anything but the claim is there; one that a mistake ended before that binds nobody.

    Raises:
        DestinationError: another recipe or source made it (each differing field is named), or other files are there.
    """
    recipe = plain(recipe)
    if not (there := store.exists("recipe.yaml")) or not begun:
        if not there:
            refuse_strangers(store)
        _write(store, recipe, plan_digest, job)
        return
    differences = list(_differences(_stored_recipe(store), recipe))
    other_input = not store.exists("plan.json") or store.read_json("plan.json").get("digest") != plan_digest
    if on_changes is not None:
        if changes := [*differences, *([_OTHER_INPUT] if other_input else [])]:
            on_changes(changes)
            _write(store, recipe, plan_digest, job)
        return
    if differences:
        raise DestinationError(
            "made by another recipe: " + "; ".join(differences),
            where=store.url,
            mend=f"Give the same values to go on there, or choose another folder{_adopts(job)}.",
        )
    if other_input:
        raise DestinationError(
            f"made from other input: {_OTHER_INPUT}",
            where=store.url,
            mend=f"Choose another folder, or bring back the source as it was{_adopts(job)}.",
        )


def _adopts(job: str | None) -> str:
    return ", or say --continue-with-changes" if job == "bootstrap" else ""


def record_changes(store: Store, changes: Sequence[str], parts_done: int) -> None:
    """Adds to ``changes.json`` what a run that goes on does otherwise than the one before; nothing of no changes."""
    if not changes:
        return
    when = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"when": when, "parts_done_before": parts_done, "changes": list(changes)}
    store.write_json(CHANGES, [*recorded_changes(store), told])


def recorded_changes(store: Store) -> list[dict[str, Any]]:
    """What runs did otherwise than those before them, in order; empty if nothing ever changed."""
    return list(store.read_json(CHANGES)) if store.exists(CHANGES) else []


def claim_models(store: Store, models: Mapping[str, Any], *, dry_run: bool = False, begun: bool = True) -> None:
    """Writes ``models.json``, unless ``dry_run``; a later run must bring the same models, once something is ``begun``.

    Raises:
        DestinationError: a model of the same name has other weights.
    """
    if begun and store.exists(MODELS):
        there = store.read_json(MODELS)
        for role, model in models.items():
            if there.get(role, {}).get("sha256") != model["sha256"]:
                raise DestinationError(
                    f"made with another {role} of the name {model['name']}: its weights have changed since",
                    where=store.url,
                    mend="Bring back the model as it was, or choose another folder.",
                )
    elif not dry_run:
        store.write_json(MODELS, dict(models))


def changed_models(store: Store, models: Mapping[str, Any]) -> list[str]:
    """In words, the models that had other weights, under the same name, when the destination was begun."""
    there = store.read_json(MODELS) if store.exists(MODELS) else models
    return [
        f"the {role} {models.get(role, {}).get('name')} has other weights"
        for role in sorted({*there, *models})
        if there.get(role, {}).get("name") == models.get(role, {}).get("name") and there.get(role) != models.get(role)
    ]


def _write(store: Store, recipe: Mapping[str, Any], plan_digest: str, job: str | None) -> None:
    store.write_json("plan.json", {"format": FORMAT_VERSION, "digest": plan_digest})
    text = yaml.safe_dump(recipe, sort_keys=True, allow_unicode=True)
    store.write("recipe.yaml", f"{_RECIPE_HEAD.format(taken=_TAKEN.format(job=job) if job else '')}{text}".encode())


def plain(value: Any) -> Any:
    """The value as JSON would give it back: tuples as lists, enums as strings, keys as strings."""
    return json.loads(json.dumps(value))


def digest_of(value: Any) -> str:
    """sha256 in hex of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def refuse_strangers(store: Store) -> None:
    """Passes where a first run may write.

    Raises:
        DestinationError: files are there that it did not make.
    """
    # plan.json alone is a claim that died half-way; hidden files are temporaries and file managers'.
    strangers = [name for name in store.entries() if not name.startswith(".") and name != "plan.json"]
    if strangers:
        raise DestinationError(
            f"not empty and was not made by capfilt (it holds {strangers[0]})",
            where=store.url,
            mend="Choose a new or empty folder.",
        )


def _stored_recipe(store: Store) -> Any:
    try:
        return yaml.safe_load(store.read("recipe.yaml"))
    except yaml.YAMLError as error:
        raise DestinationError(
            "its recipe.yaml cannot be read", where=store.path("recipe.yaml"), mend="Choose another folder."
        ) from error


def _differences(there: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted({*there, *now}):
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(there.get(key, _ABSENT), now.get(key, _ABSENT), inner)
    elif there != now:
        yield f"{path or 'recipe'} is {_shown(there)} there and {_shown(now)} now"


_ABSENT = object()


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
