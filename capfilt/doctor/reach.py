"""What lies elsewhere: models, the hub, credentials (their names, never their values), the destination."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from capfilt.catalog import model_folder
from capfilt.doctor.check import Check, fail, ok, warn
from capfilt.errors import CapfiltError

_HUB = "https://huggingface.co"
_PATIENCE_S = 3.0
_TRUE = {"1", "on", "yes", "true"}

_ACCOUNTS: dict[str, tuple[Sequence[str], Sequence[str], str]] = {
    "s3": (("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"), ("~/.aws/credentials", "~/.aws/config"), "s3://"),
    "google cloud": (
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        ("~/.config/gcloud/application_default_credentials.json",),
        "gs://",
    ),
    "azure": (("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_ID"), (), "az://"),
    "hugging face": (
        ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        ("$HF_HOME/token", "~/.cache/huggingface/token"),
        "gated models and for pushing",
    ),
    "weights & biases": (("WANDB_API_KEY",), ("~/.netrc",), "track: wandb"),
    "mlflow": (("MLFLOW_TRACKING_URI",), (), "track: mlflow"),
}
"""By service: variables, files, and what they are needed for."""
_NETRC = {"weights & biases": "api.wandb.ai"}


def models(names: Mapping[str, str | None]) -> Iterator[Check]:
    """Whether the models of a recipe are there with their weights.

    Args:
        names: from role to name or folder; a role without a name is not played.
    """
    for role, name in names.items():
        if name is None:
            continue
        try:
            folder = model_folder(name)
        except CapfiltError as error:
            yield fail(role, f"{name}: {error.what}", error.mend)
            continue
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if weights:
            yield ok(role, f"{name}, {weights / 1e6:,.0f} MB of weights")
        else:
            yield fail(
                role,
                f"{name} has no weights",
                f"Import some (`capfilt models import --help`), or name another with --set capfilt.{role}=.",
            )


def hub(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether the Hugging Face Hub answers, as `hf://` sources need."""
    if environment.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        return ok("hub", "not asked: HF_HUB_OFFLINE is set, only what is in the cache is used")
    url = environment.get("HF_ENDPOINT") or _HUB
    answers: list[str] = []
    # A name server that never answers cannot be told to give up: the thread is left behind.
    asking = threading.Thread(target=lambda: answers.append(_asked(url)), daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    problem = answers[0] if answers else f"no answer in {_PATIENCE_S:g} s"
    if problem:
        return warn(
            "hub",
            f"{urlsplit(url).netloc} does not answer: {problem}",
            "Only hf:// sources need it. Behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT.",
        )
    return ok("hub", f"{urlsplit(url).netloc} answers")


def accounts(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Which credentials are there, by name alone."""
    for service, (variables, files, needed) in _ACCOUNTS.items():
        there = [name for name in variables if environment.get(name)]
        there += [file for file in files if _holds(file, service)]
        name = f"credentials: {service}"
        if problem := _halves(service, environment):
            yield warn(name, *problem)
        elif there:
            yield ok(name, f"found by {' and '.join(there)}")
        else:
            yield ok(name, f"none; only needed for {needed}")


def destination(dest: str) -> Check:
    """Whether a data set could be written there."""
    from capfilt.storage import Store  # noqa: PLC0415 s3fs and the like take a while, and only this check needs them

    try:
        Store(dest).check_writable()
    except CapfiltError as error:
        return fail("destination", f"{error.where or dest}: {error.what}", error.mend)
    return ok("destination", f"{dest} can be written")


def _asked(url: str) -> str:
    """Empty if it answers, whatever it says; else what went wrong."""
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 the user's own endpoint, nothing is read
        with urllib.request.urlopen(request, timeout=_PATIENCE_S):  # noqa: S310
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _holds(file: str, service: str) -> bool:
    """Whether the file is there; one that many services share must name this one."""
    path = Path(os.path.expandvars(file)).expanduser()
    if path.name != ".netrc":
        return path.is_file()
    try:
        return _NETRC[service] in path.read_text("utf-8", "replace")
    except OSError:
        return False


def _halves(service: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """What is set but cannot work."""
    if service == "s3" and bool(environment.get("AWS_ACCESS_KEY_ID")) != bool(environment.get("AWS_SECRET_ACCESS_KEY")):
        return "one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set without the other", "Set both, or neither."
    key = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    if service == "google cloud" and key and not Path(key).expanduser().is_file():
        return "GOOGLE_APPLICATION_CREDENTIALS names a file that is not there", "Mend the path, or unset it."
    return None
