"""Reading from Python: the samples of a data set, or of anybody's shards. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from capfilt.shards import verify as checks
from capfilt.shards.read import samples, shards_of
from capfilt.shards.sample import Sample
from capfilt.storage import Store


def read(
    data: str | Sequence[str], *, origin: str = "web", on_bad: Callable[[str, str], None] | None = None
) -> Iterator[Sample]:
    """The samples of data sets and shards, in order, in memory of a few of them.

    >>> import capfilt
    >>> samples = list(capfilt.read("clean"))
    >>> part, row = samples[0].key.split("-")
    >>> part, len(row)
    ('00000', 7)
    >>> samples[0].caption in [caption["text"] for caption in samples[0].captions if caption["kept"]]
    True
    >>> samples[0].picture().mode
    'RGB'

    Args:
        data: data sets of :func:`capfilt.bootstrap`, folders of shards, ``.tar`` or ``.parquet`` shards, or globs;
            local or URLs.
        origin: whose captions those of a stranger's tars are: ``web``, ``synthetic`` or ``human``.
        on_bad: told (what, why) of what cannot be read and is passed over. None: the first such thing is an error.

    Raises:
        SourceError: there are no shards. DataError: something cannot be read and ``on_bad`` is None.
    """
    entries = [data] if isinstance(data, str) else data
    return samples([url for entry in entries for url in shards_of(entry)], origin=origin, on_bad=on_bad)


def verify(dest: str) -> list[str]:
    """The problems of a data set, one sentence each: what does not fit its books, or is not as it was written.

    >>> import capfilt
    >>> capfilt.verify("clean")
    []

    Args:
        dest: where :func:`capfilt.bootstrap` wrote; a folder or a URL.
    """
    return checks.verify(Store(dest))
