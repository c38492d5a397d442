"""Texts that a model doesn't read: counted, logged now and then, and told to who sent them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from mlopsdeploy.columns import Columns
from mlopsdeploy.core.model import Model, counted, unread_in
from mlopsdeploy.serve.metrics import ModelMetrics

HEADER = "X-Unread-Texts"
"""Of an answer to texts of which the model doesn't read some: how many and why, `12 de, 3 ar`."""
UNREAD = "unread"
"""The column that says why; of models of other data there is none."""
PAUSE = 600.0  # seconds between two lines of a worker's log about the same model
log = logging.getLogger("mlopsdeploy.serve")


class Unread:
    """What is done about the texts that one model doesn't read.

    Args:
        name: what the server calls it.
        model: the model.
        metrics: where they are counted.
    """

    def __init__(self, name: str, model: Model, metrics: ModelMetrics) -> None:
        self._name = name
        self._languages = ", ".join(model.task.languages)
        self._metrics = metrics
        self._texts = model.task.data == "text"
        self._lock = threading.Lock()
        self._since: Counter[str] = Counter()  # the last line of the log
        self._next = 0.0

    def note(self, predictions: Columns) -> tuple[tuple[str, str], ...]:
        """Count those of a request; gives the headers of its answer, none if there are none."""
        found = unread_in(predictions) if self._texts and UNREAD in predictions else None
        if not found:
            return ()
        self._metrics.unread(found)
        with self._lock:
            self._since += found
            if time.monotonic() < self._next:
                return ((HEADER, counted(found)),)
            since, self._since = self._since, Counter()
            self._next = time.monotonic() + PAUSE
        known = f", which reads {self._languages}," if self._languages else ""
        log.warning(
            "%s%s was sent texts that it doesn't read (%s), so their labels mean little",
            self._name, known, counted(since), extra={"model": self._name},
        )  # fmt: skip
        return ((HEADER, counted(found)),)
