"""A client of the service, typed: the same questions and jobs as Python calls.

    from capfilt.service.client import Client, picture

    with Client("http://127.0.0.1:8642") as service:
        for result in service.capfilt([picture("cat.jpg", texts=["IMG 4711"])]):
            print(result.captions)

Asked to come again, it does, for as long as its patience lasts. Knows the wire and httpx; knows no server.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from capfilt.errors import CapfiltError
from capfilt.service.jobs.wire import ACTIVE, Job, JobRequest, Jobs, RetryRequest, State
from capfilt.service.wire import About, PictureWithTexts, Problem, Result, Results

_AGAIN = (429, 503)
_SILENCE_S = 60.0
"""Events beat four times as often."""
_LONGEST_S = 60.0
_PAUSE_S = 0.5


class ServiceError(CapfiltError):
    """What the service refused, in its words. ``status`` is HTTP's; 0 if it did not answer."""

    def __init__(self, what: str, *, where: str = "", mend: str = "", status: int = 0) -> None:
        super().__init__(what, where=where, mend=mend)
        self.status = status


def picture(what: bytes | Path | str, *, texts: Sequence[str] = (), id: str | None = None) -> PictureWithTexts:  # noqa: A002
    """A picture to send.

    Args:
        what: its bytes, its file, or its URL (text with ``://``).
        texts: to judge.
        id: seeds the sampling; None takes the picture.

    Raises:
        ValueError: texts or URL are longer than the service reads.
    """
    if isinstance(what, str) and "://" in what:
        return PictureWithTexts(image=None, url=what, texts=list(texts), id=id)
    data = what if isinstance(what, bytes) else Path(what).read_bytes()
    return PictureWithTexts(image=base64.b64encode(data).decode(), url=None, texts=list(texts), id=id)


class Client:
    """The service at an address.

    Args:
        url: of the service.
        token: None where none is needed.
        patience_s: seconds that 429 and 503 are waited for, in all.
        timeout_s: of one request.
    """

    def __init__(
        self, url: str, token: str | None = None, *, patience_s: float = 60.0, timeout_s: float = 130.0
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ServiceError(f"it is no address: {error}", where=url[:200], mend="As http://host:8642.") from error
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def about(self) -> About:
        """The models behind the service, and its bounds."""
        return About.model_validate_json(self._ask("GET", "/v1/about").content)

    def caption(self, pictures: Sequence[PictureWithTexts]) -> list[Result]:
        """A caption for each picture, unjudged; texts are left out.

        Raises:
            ServiceError: refused, or no answer.
        """
        asked = [one.model_dump(exclude={"texts"}, exclude_none=True) for one in pictures]
        return self._results("/v1/caption", asked)

    def score(self, pictures: Sequence[PictureWithTexts]) -> list[Result]:
        """Scores and a verdict for each text of each picture.

        Raises:
            ServiceError: refused, or no answer.
        """
        return self._results("/v1/score", [one.model_dump(exclude_none=True) for one in pictures])

    def capfilt(self, pictures: Sequence[PictureWithTexts]) -> list[Result]:
        """Captions each picture, and judges the caption and the picture's texts.

        Raises:
            ServiceError: refused, or no answer.
        """
        return self._results("/v1/capfilt", [one.model_dump(exclude_none=True) for one in pictures])

    def submit(
        self,
        recipe: Mapping[str, Any],
        dest: str,
        *,
        retry: Sequence[str] = (),
        workers: int | None = None,
        key: str | None = None,
    ) -> Job:
        """Submits a job.

        Args:
            recipe: as nested fields; ``source.path`` is needed.
            dest: where the data set goes, as the service sees it.
            retry: reasons whose rows are tried again.
            workers: that hold the models.
            key: the same key gives the same job; None takes a new one, so that only a broken connection repeats it.

        Raises:
            ServiceError: refused, or no answer.
        """
        asked = JobRequest(recipe=dict(recipe), dest=dest, retry=list(retry), workers=workers)
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        return self._job("POST", "/v1/jobs", json=asked.model_dump(), headers=headers)

    def jobs(self, *, state: State | None = None, limit: int = 50) -> Iterator[Job]:
        """Jobs that the token sees, the newest first; ``limit`` a request."""
        asked: dict[str, Any] = {"limit": limit} | ({"state": str(state)} if state else {})
        while True:
            page = Jobs.model_validate_json(self._ask("GET", "/v1/jobs", params=asked).content)
            yield from page.jobs
            if page.next is None:
                return
            asked["before"] = page.next

    def job(self, job: str) -> Job:
        """A job as it is now.

        Raises:
            ServiceError: there is none, or no answer.
        """
        return self._job("GET", f"/v1/jobs/{job}")

    def watch(self, job: str) -> Iterator[Job]:
        """The job whenever it changes, until it ends; a connection that breaks is made anew.

        Raises:
            ServiceError: there is none, it may not be followed, or the service stays away beyond the patience.
        """
        last: Job | None = None
        while True:
            now = self.job(job)
            if now != last:
                yield now
            last = now
            if last.state not in ACTIVE:
                return
            try:
                for now in self._events(job):
                    if now != last:
                        yield now
                    last = now
            except httpx.TransportError:
                pass  # it is made anew
            if last.state not in ACTIVE:
                return
            time.sleep(_PAUSE_S)

    def cancel(self, job: str) -> Job:
        """Asks a job to end."""
        return self._job("POST", f"/v1/jobs/{job}/cancel")

    def retry(self, job: str, reasons: Sequence[str] = ()) -> Job:
        """Queues an ended job again."""
        return self._job("POST", f"/v1/jobs/{job}/retry", json=RetryRequest(reasons=list(reasons)).model_dump())

    def manifest(self, job: str) -> dict[str, Any]:
        """The books of a finished job."""
        found: dict[str, Any] = self._ask("GET", f"/v1/jobs/{job}/manifest").json()
        return found

    def report(self, job: str) -> str:
        """The report of a finished job, as HTML."""
        return self._ask("GET", f"/v1/jobs/{job}/report").text

    def log(self, job: str) -> str:
        """The end of what a job wrote."""
        return self._ask("GET", f"/v1/jobs/{job}/log").text

    def _results(self, path: str, pictures: list[dict[str, Any]]) -> list[Result]:
        answer = self._ask("POST", path, json={"pictures": pictures})
        return Results.model_validate_json(answer.content).results

    def _job(self, method: str, path: str, **more: Any) -> Job:
        return Job.model_validate_json(self._ask(method, path, **more).content)

    def _events(self, job: str) -> Iterator[Job]:
        timeout = httpx.Timeout(10.0, read=_SILENCE_S)
        with self._http.stream("GET", f"/v1/jobs/{job}/events", timeout=timeout) as answer:
            if answer.status_code != 200:
                answer.read()
                if answer.status_code != 429 and answer.status_code < 500:
                    raise _refused(answer)
                time.sleep(min(_after(answer), _LONGEST_S))
                return
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield Job.model_validate_json(line[6:])

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        until = time.monotonic() + self._patience_s
        while True:
            try:
                answer = self._http.request(method, path, **more)
            except httpx.TransportError as error:
                wait, refused = 0.5, self._silent(error)
            else:
                if answer.is_success:
                    return answer
                refused = _refused(answer)
                if answer.status_code not in _AGAIN:
                    raise refused
                wait = _after(answer)
            if time.monotonic() + wait > until:
                raise refused
            time.sleep(wait)

    def _silent(self, error: httpx.TransportError) -> ServiceError:
        what = f"the service does not answer: {type(error).__name__}"
        return ServiceError(
            what, where=str(self._http.base_url), mend="Check the address, and that `capfilt serve` runs there."
        )


def _after(answer: httpx.Response) -> float:
    """Seconds that an answer asks to wait."""
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else 1.0


def _refused(answer: httpx.Response) -> ServiceError:
    try:
        told = Problem.model_validate_json(answer.content)
    except ValueError:
        told = Problem(
            what=f"it answers {answer.status_code}", where=str(answer.url), mend="Is this a capfilt service?"
        )
    return ServiceError(told.what, where=told.where, mend=told.mend or "See /openapi.json.", status=answer.status_code)
