"""What is told while a check runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


@contextmanager
def warnings_told() -> Iterator[list[str]]:
    """Lines of level WARNING or above that mmengine's logger tells the user."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    listener = Listener(logging.WARNING)
    logger = MMLogger.get_current_instance()
    logger.addHandler(listener)
    try:
        yield lines
    finally:
        logger.removeHandler(listener)
