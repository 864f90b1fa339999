"""Counts how often files are opened."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_counts: Counter | None = None


def _note(event: str, args: tuple) -> None:
    # Python cannot take an audit hook back.
    if _counts is not None and event == 'open':
        _counts[str(args[0])] += 1


sys.addaudithook(_note)


@contextmanager
def counted_opens() -> Iterator[Counter]:
    """How often each path is opened by this process within the block, by whatever Python code."""
    global _counts
    _counts = Counter()
    try:
        yield _counts
    finally:
        _counts = None
