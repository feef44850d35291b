"""A job's own process: one bootstrap, told on stdout as JSON lines. ``python -m capfilt.service.jobs.driver``.

What to do comes in the file that the environment variable CAPFILT_JOB_FILE names, or itself in CAPFILT_JOB. The places
are held against the token's prefixes once more, now that files are about to be read. Knows the main job; knows no
server, and works on when that is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from capfilt.bootstrap import Progress, bootstrap
from capfilt.errors import CapfiltError, EngineError
from capfilt.flow.config import RunConfig
from capfilt.recipe import Recipe, load_config
from capfilt.service.places import check_dest, check_files, settle_recipe
from capfilt.shards.lease import LASTS_S

VARIABLE, FILE = "CAPFILT_JOB", "CAPFILT_JOB_FILE"
LOCK = "CAPFILT_JOB_LOCK"
"""Number of an open file whose lock says that the job lives."""
MISTAKE, INTERRUPTED = 2, 130


def main() -> int:
    """Runs the job and returns the exit code: 0 done, 1 a fault, 2 a mistake, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    file = os.environ.pop(FILE, None)
    spec = json.loads(os.environ.pop(VARIABLE) if file is None else Path(file).read_text(encoding="utf-8"))
    lock = os.environ.pop(LOCK, None)
    if lock is not None:
        os.set_inheritable(int(lock), False)  # what this process starts must not seem to be the job
        os.pwrite(int(lock), b"%d\n" % os.getpid(), 0)  # for a service that died before it could write so
    tell = _Teller(spec["job"], spec["attempt"])
    try:
        tell("begun", pid=os.getpid())
        _run(spec, tell)
    except CapfiltError as error:
        # A worker that Ray lost, memory that ran out, a store that was away: that may pass, a wrong recipe does not.
        again = error.passing or isinstance(error, EngineError)
        tell("failed", what=error.what, where=error.where, mend=error.mend, again=again)
        return MISTAKE
    except KeyboardInterrupt:
        tell("interrupted")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 the process boundary: the log shows it whole
        traceback.print_exc()
        tell("fault", what=f"{type(error).__name__}: {error}"[:1000])
        return 1
    tell("done")
    return 0


def _run(spec: dict[str, Any], tell: _Teller) -> None:
    recipe = load_config(Recipe, given=spec["recipe"])
    sources, dests = tuple(spec["sources"]), tuple(spec["dests"])
    recipe = settle_recipe(recipe, sources, recipe.fetch.allow_addresses)  # those were looked at when it was submitted
    check_files(recipe, sources)
    check_dest(spec["dest"], dests)
    # An attempt whose machine is gone still holds the destination for a while; other jobs do not come there.
    run = RunConfig(runner=spec["runner"], workers=spec["workers"], wait_s=LASTS_S + 10)
    bootstrap(
        recipe.source,
        spec["dest"],
        recipe=recipe,
        run=run,
        on_progress=_Pace(tell),
        retry=spec["retry"],
    )


class _Teller:
    def __init__(self, job: str, attempt: int) -> None:
        self._told = {"job": job, "attempt": attempt}

    def __call__(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **self._told, **values})
        print(line, file=sys.stdout, flush=True)  # noqa: T201 stdout is what the service reads


class _Pace:
    """Tells of progress, at most a line a second, and how long the rest will take."""

    def __init__(self, tell: _Teller) -> None:
        self._tell = tell
        self._begun: tuple[float, int] | None = None
        self._last = 0.0

    def __call__(self, now: Progress) -> None:
        clock = time.monotonic()
        if self._begun is None:
            self._begun = clock, now.done
        elif clock - self._last < 1 and now.done < now.total:
            return
        self._last = clock
        since, before = self._begun
        rate = (now.done - before) / (clock - since) if clock > since else 0.0
        eta = round((now.total - now.done) / rate, 1) if rate > 0 else None
        books = {"rows": now.tally.rows, "kept": now.tally.kept, "dropped": dict(now.tally.dropped)}
        texts = {"texts": dict(now.tally.texts), "texts_kept": dict(now.tally.texts_kept)}
        self._tell("progress", part=now.done, done=now.done, total=now.total, eta_s=eta, **books, **texts)


if __name__ == "__main__":
    sys.exit(main())
