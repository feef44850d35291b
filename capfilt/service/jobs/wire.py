"""Jobs over the wire: what is submitted, and what is told of one. The client reads this too."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from capfilt.service.wire import Strict

MAX_PLACE = 4096
"""Characters of a path or URL."""
Reason = Annotated[str, Field(max_length=64)]


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (State.QUEUED, State.RUNNING)


class JobRequest(Strict):
    """A data set to make."""

    recipe: dict[str, Any] = Field(
        description="The recipe, as `capfilt recipes show bootstrap` has it; needs source.path."
    )
    dest: str = Field(min_length=1, max_length=MAX_PLACE, description="Folder or URL that the data set goes to.")
    retry: list[Reason] = Field(default_factory=list, max_length=32, description="Reasons whose rows are tried again.")
    workers: int | None = Field(None, ge=1, le=100_000, description="Workers that hold the models; null: what fits.")


class RetryRequest(Strict):
    """Once more."""

    reasons: list[Reason] = Field(
        default_factory=list, max_length=32, description="Reasons whose rows are tried again."
    )


class Page(BaseModel):
    """Which jobs are asked for."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    before: str | None = Field(None, pattern=r"^[0-9a-f]{16}$", description="Those made before this one.")
    limit: int = Field(50, ge=1, le=200)


class AuditPage(BaseModel):
    """How many lines of the audit log are asked for."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000)


class Progress(BaseModel):
    """How far a job is: parts of its plan, and the books of those that are done."""

    done: int
    total: int
    rows: int
    kept: int
    dropped: dict[str, int]
    texts: dict[str, int] = Field(description="Scored texts by origin.")
    texts_kept: dict[str, int]
    eta_s: float | None = Field(description="Seconds that the rest will take, as far as is known.")


class Failure(BaseModel):
    """Why a job failed."""

    what: str
    where: str = ""
    mend: str = ""


class Job(BaseModel):
    """A job."""

    id: str
    owner: str = Field(description="The name of the token that submitted it.")
    state: State
    dest: str
    source: str
    recipe: dict[str, Any]
    retry: list[str]
    workers: int | None
    attempt: int = Field(description="Times that it was begun.")
    created: float = Field(description="Seconds since 1970, as all times here.")
    started: float | None
    ended: float | None
    progress: Progress | None
    error: Failure | None
    links: dict[str, str] = Field(description="Where its events, log, manifest and report are.")


class Jobs(BaseModel):
    """Jobs, the newest first."""

    jobs: list[Job]
    next: str | None = Field(description="Give it as `before` for those that follow; null at the end.")


class Audited(BaseModel):
    """A line of the audit log."""

    at: float
    caller: str
    action: str
    target: str
    request: str
    outcome: str


class Audit(BaseModel):
    """The audit log, the newest first."""

    entries: list[Audited]
