"""Who asks, and what they may: bearer tokens, their roles, and the places that their jobs may read and write.

Of a token only its SHA-256 is kept: it is 32 random bytes, which nobody finds by trying. Knows a YAML file; knows no
route.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

import yaml
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capfilt.errors import CapfiltError, RecipeError
from capfilt.service.config import ServiceConfig
from capfilt.service.described import OPEN
from capfilt.service.places import check_prefixes
from capfilt.service.problems import Refusal

PREFIX = "capfilt_"
T = TypeVar("T", bound=BaseModel)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Role(StrEnum):
    """What a token is for; it may have several."""

    ONLINE = "online"
    """Ask for captions, scores and verdicts."""
    JOBS = "jobs"
    """Submit jobs, and see, cancel and retry its own."""
    WATCH = "watch"
    """See everybody's jobs, and the metrics."""
    ADMIN = "admin"
    """All of it, and cancel and retry everybody's jobs, and read the audit log."""


class _Token(BaseModel):
    """A token as the file holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME.pattern)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: tuple[Role, ...] = Field(min_length=1)
    sources: tuple[str, ...] = ()
    dests: tuple[str, ...] = ()
    max_jobs: int = Field(10, ge=0, le=100_000)
    created: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokens: tuple[_Token, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks."""

    name: str
    roles: frozenset[Role]
    sources: tuple[str, ...] = ()
    """Prefixes that jobs may read from."""
    dests: tuple[str, ...] = ()
    """Prefixes that jobs may write to."""
    max_jobs: int = 10
    """Jobs that may wait or run at once."""

    def may(self, *roles: Role) -> bool:
        """Whether one of these roles, or that of all, is its."""
        return bool(self.roles & {*roles, Role.ADMIN})


@dataclass
class Access:
    """Everybody who may ask."""

    callers: dict[str, Caller] = field(default_factory=dict)
    """By the SHA-256 of their tokens."""
    anonymous: Caller | None = None
    """Who asks without a token, where none are needed."""

    @classmethod
    def of(cls, config: ServiceConfig) -> Self:
        """From the tokens of a configuration; without any, everybody on this machine may ask.

        Raises:
            RecipeError: the file cannot be read, a prefix is no place, or others can reach the service and there are
                no tokens.
        """
        check_prefixes((*config.sources, *config.dests), where="sources and dests")
        if config.tokens is None:
            if not config.loopback:
                raise RecipeError(
                    f"{config.host} can be reached from elsewhere, and there are no tokens",
                    where="tokens",
                    mend="Make one with `capfilt tokens new`, or listen at 127.0.0.1.",
                )
            me = Caller(name="local", roles=frozenset(Role), sources=config.sources, dests=config.dests)
            return cls(anonymous=me)
        tokens = read(Path(config.tokens))
        for token in tokens:
            check_prefixes((*token.sources, *token.dests), where=f"{config.tokens}: {token.name}")
        return cls({token.sha256: _caller(token) for token in tokens})

    def identify(self, authorization: str | None, path: str, *, reads: bool = True) -> Caller | None:
        """Who speaks; None on the paths that are open to all who only read them.

        Args:
            authorization: the header.
            path: that is asked for.
            reads: whether the request is a GET or HEAD without a body.

        Raises:
            Refusal: 401, no token or an unknown one.
        """
        if self.anonymous is not None:
            return self.anonymous
        if reads and path in OPEN:
            return None
        scheme, _, token = (authorization or "").partition(" ")
        caller = self.callers.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
        if caller is None:
            what = "the token is unknown" if authorization else "a token is needed"
            mend = "Send the header Authorization: Bearer TOKEN; the operator of the service gives tokens."
            ask = {"WWW-Authenticate": 'Bearer realm="capfilt"'}
            raise Refusal(401, what, where="Authorization", mend=mend, headers=ask)
        return caller


def allowed(*roles: Role) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of a route: the caller, who has one of these roles."""

    async def caller(request: Request) -> Caller:
        found: Caller | None = request.state.caller
        if found is None or not found.may(*roles):
            names = " or ".join(roles)
            raise Refusal(403, f"this token has not the role {names}", mend="Use one that has, or ask the operator.")
        return found

    return caller


def new(
    file: Path,
    name: str,
    *,
    roles: tuple[str, ...],
    sources: tuple[str, ...] = (),
    dests: tuple[str, ...] = (),
    max_jobs: int = 10,
) -> str:
    """Adds a token to the file, which is made for its owner alone, and returns it: the only time that it is seen.

    Raises:
        RecipeError: the name is taken or unfit, a role is unknown, a prefix is no place.
    """
    check_prefixes((*sources, *dests), where="the token's prefixes")
    tokens = read(file) if file.exists() else ()
    if any(token.name == name for token in tokens):
        raise RecipeError(f"there is a token of the name {name}", where=str(file), mend="Take another, or revoke it.")
    secret = PREFIX + secrets.token_urlsafe(32)
    told = {"name": name, "sha256": _digest(secret), "roles": list(roles), "max_jobs": max_jobs}
    told |= {"sources": list(sources), "dests": list(dests), "created": datetime.now(UTC).isoformat(timespec="seconds")}
    _write(file, (*tokens, _checked(_Token, told, file)))
    return secret


def revoke(file: Path, name: str) -> None:
    """Takes a token out of the file; a running service is to be started again.

    Raises:
        RecipeError: there is none of this name.
    """
    tokens = read(file)
    left = tuple(token for token in tokens if token.name != name)
    if len(left) == len(tokens):
        names = ", ".join(token.name for token in tokens) or "none"
        raise RecipeError(f"no token has the name {name}", where=str(file), mend=f"There are: {names}.")
    _write(file, left)


def read(file: Path) -> tuple[_Token, ...]:
    """The tokens of a file.

    Raises:
        RecipeError: it cannot be read, or is none.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mend = "Make it with `capfilt tokens new`."
        raise RecipeError(f"cannot be read: {type(error).__name__}", where=str(file), mend=mend) from error
    return _checked(_File, data, file).tokens


def _checked(kind: type[T], data: object, file: Path) -> T:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{place}: {first['msg']}", where=str(file), mend="See docs/service.md.") from error


def _write(file: Path, tokens: tuple[_Token, ...]) -> None:
    text = yaml.safe_dump({"tokens": [token.model_dump(mode="json") for token in tokens]}, sort_keys=False)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        mend = "Choose another file."
        raise CapfiltError(f"cannot be written: {error.strerror}", where=str(file), mend=mend) from error
    finally:
        temporary.unlink(missing_ok=True)


def _caller(token: _Token) -> Caller:
    return Caller(
        name=token.name,
        roles=frozenset(token.roles),
        sources=token.sources,
        dests=token.dests,
        max_jobs=token.max_jobs,
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
