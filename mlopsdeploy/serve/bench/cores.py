"""Which cores the server of a bench has, and which its client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Cores:
    """Which cores the server has and which the client, so that neither takes from the other."""

    def __init__(self) -> None:
        known = hasattr(os, "sched_setaffinity")
        cores = sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))
        self.apart = known and len(cores) > 1
        self.all = cores
        self.server = cores[:-1] if self.apart else cores
        self.client = cores[-1:] if self.apart else cores

    @contextmanager
    def of_server(self) -> Iterator[None]:
        """What is started or loaded within runs there."""
        with self._kept_to(self.server):
            yield

    @contextmanager
    def of_client(self) -> Iterator[None]:
        """The same for the client."""
        with self._kept_to(self.client):
            yield

    @contextmanager
    def _kept_to(self, cores: Sequence[int]) -> Iterator[None]:
        if not self.apart:
            yield
            return
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.all)
