"""The books of all jobs, and the audit log, in a database that outlives the service: SQLite, or Postgres by URL.

A change of state is an update that names the state it expects, so two that want the same thing do not both get it.
Knows SQLAlchemy; knows not how a job is run.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from capfilt.errors import EngineError
from capfilt.service.jobs.wire import ACTIVE, State

_META = sa.MetaData()
JOBS = sa.Table(
    "jobs",
    _META,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("dest", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("key", sa.String(128)),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("first_attempt", sa.Integer, nullable=False, default=0),
    sa.Column("cancel", sa.Boolean, nullable=False, default=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("ended", sa.Float),
    sa.Column("progress", sa.Text),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("owner", "key"),
)
_BUSY = sa.Index(
    "one_job_a_dest",
    JOBS.c.dest,
    unique=True,
    sqlite_where=JOBS.c.state.in_(ACTIVE),
    postgresql_where=JOBS.c.state.in_(ACTIVE),
)
_AUDIT = sa.Table(
    "audit",
    _META,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("caller", sa.String(64), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
)
_LEADER = sa.Table(
    "leader",
    _META,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A job as the database has it."""

    id: str
    owner: str
    state: State
    dest: str
    spec: dict[str, Any]
    digest: str
    attempt: int
    first_attempt: int
    """``attempt`` when it was last submitted or retried."""
    cancel: bool
    created: float
    started: float | None
    ended: float | None
    progress: dict[str, Any] | None
    error: dict[str, Any] | None


class TakenError(Exception):
    """A job with this key is there, or one that works at this destination."""


class JobStore:
    """The database.

    Args:
        url: as SQLAlchemy writes it.

    Raises:
        EngineError: it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _sqlite)
            _META.create_all(self._engine)
        except (SQLAlchemyError, ImportError) as error:
            first = str(error).partition("\n")[0]
            mend = "Check jobs.database and jobs.state, and that the driver of the database is installed."
            raise EngineError(f"the jobs' database does not open: {first}", where="jobs.database", mend=mend) from error

    def close(self) -> None:
        """Lets the connections go."""
        self._engine.dispose()

    def ping(self) -> None:
        """Passes if the database answers.

        Raises:
            EngineError: it does not.
        """
        with self._begin() as connection:
            connection.execute(sa.select(sa.literal(1)))

    def add(self, owner: str, spec: Mapping[str, Any], digest: str, key: str | None) -> Row:
        """A new job, queued.

        Raises:
            TakenError: the owner has used the key, or another job works at the destination.
        """
        row = {
            "id": secrets.token_hex(8),
            "owner": owner,
            "state": State.QUEUED,
            "dest": spec["dest"],
            "digest": digest,
        }
        row |= {"spec": json.dumps(spec), "key": key, "created": time.time()}
        try:
            with self._begin() as connection:
                connection.execute(JOBS.insert().values(**row))
        except IntegrityError as error:
            raise TakenError from error
        return self._need(str(row["id"]))

    def get(self, job: str) -> Row | None:
        """A job, or None."""
        with self._begin() as connection:
            found = connection.execute(JOBS.select().where(JOBS.c.id == job)).first()
        return None if found is None else _row(found)

    def by_key(self, owner: str, key: str) -> Row | None:
        """The owner's job of an idempotency key, or None."""
        where = (JOBS.c.owner == owner) & (JOBS.c.key == key)
        with self._begin() as connection:
            found = connection.execute(JOBS.select().where(where)).first()
        return None if found is None else _row(found)

    def list(self, owner: str | None, state: State | None, before: str | None, limit: int) -> list[Row]:
        """Jobs, the newest first: of an owner or of all, those that were made before another."""
        query = JOBS.select().order_by(JOBS.c.created.desc(), JOBS.c.id).limit(limit)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        if state is not None:
            query = query.where(JOBS.c.state == state)
        if before is not None:
            when = sa.select(JOBS.c.created).where(JOBS.c.id == before).scalar_subquery()
            query = query.where((JOBS.c.created < when) | ((JOBS.c.created == when) & (JOBS.c.id > before)))
        with self._begin() as connection:
            return [_row(found) for found in connection.execute(query)]

    def active(self, owner: str) -> int:
        """Jobs of an owner that wait or run."""
        query = sa.select(sa.func.count()).where(JOBS.c.owner == owner, JOBS.c.state.in_(ACTIVE))
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._begin() as connection:
            found = connection.execute(sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state))
            return {str(state): int(count) for state, count in found}

    def in_state(self, state: State) -> Sequence[Row]:
        """Jobs in a state, the eldest first."""
        query = JOBS.select().where(JOBS.c.state == state).order_by(JOBS.c.created, JOBS.c.id)
        with self._begin() as connection:
            return [_row(found) for found in connection.execute(query)]

    def change(self, job: str, expected: Sequence[State], *, at: int | None = None, **values: Any) -> bool:
        """Changes a job that is in one of the expected states, and at this attempt if one is given; whether it was.

        Raises:
            TakenError: another job works at the destination meanwhile.
        """
        told = {name: json.dumps(v) if isinstance(v, dict) else v for name, v in values.items()}
        query = JOBS.update().where(JOBS.c.id == job, JOBS.c.state.in_(expected)).values(**told)
        if at is not None:
            query = query.where(JOBS.c.attempt == at)
        try:
            with self._begin() as connection:
                return bool(connection.execute(query).rowcount)
        except IntegrityError as error:
            raise TakenError from error

    def lead(self, token: str, seconds: float) -> bool:
        """Whether this process looks after the jobs for the next seconds; of several one does."""
        now = time.time()
        free = (_LEADER.c.token == token) | (_LEADER.c.until < now)
        try:
            with self._begin() as connection:
                query = _LEADER.update().where(free).values(token=token, until=now + seconds)
                if connection.execute(query).rowcount:
                    return True
                if connection.execute(_LEADER.select()).first() is None:
                    connection.execute(_LEADER.insert().values(one=1, token=token, until=now + seconds))
                    return True
        except IntegrityError:
            pass
        return False

    def resign(self, token: str) -> None:
        """Lets another look after the jobs at once."""
        with self._begin() as connection:
            connection.execute(_LEADER.delete().where(_LEADER.c.token == token))

    def audit(self, caller: str, action: str, target: str, request: str, outcome: str) -> None:
        """Writes down who did what."""
        row = {"at": time.time(), "caller": caller, "action": action, "target": target[:4096], "request": request}
        with self._begin() as connection:
            connection.execute(_AUDIT.insert().values(**row, outcome=outcome[:1024]))

    def audited(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last lines of the audit log, the newest first."""
        with self._begin() as connection:
            found = connection.execute(_AUDIT.select().order_by(_AUDIT.c.number.desc()).limit(limit))
            return [dict(row._mapping) for row in found]

    def _need(self, job: str) -> Row:
        found = self.get(job)
        assert found is not None  # noqa: S101 it was made just now
        return found

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            first = str(error).partition("\n")[0]
            mend = "Check the database; jobs go on by themselves when it is back."
            raise EngineError(f"the jobs' database fails: {first}", where="jobs.database", mend=mend) from error


def make_folder(state: str) -> Path:
    """The folder for the jobs' books and logs, made if it is not there.

    Raises:
        EngineError: it cannot be made.
    """
    folder = Path(state).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        what = f"{folder} cannot be made a folder: {error.strerror}"
        raise EngineError(what, where="jobs.state", mend="Name a folder that the service may write to.") from error
    return folder


def sqlite_url(state: str) -> str:
    """The database in a folder, which is made.

    Raises:
        EngineError: it cannot be made.
    """
    return f"sqlite:///{make_folder(state) / 'jobs.sqlite'}"


def _sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _row(found: Any) -> Row:
    told = dict(found._mapping)
    told.pop("key")
    for name in ("spec", "progress", "error"):
        told[name] = None if told[name] is None else json.loads(told[name])
    return Row(**{**told, "state": State(told["state"]), "cancel": bool(told["cancel"])})
