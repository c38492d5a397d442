"""Reading, the model and the outputs for lines.

    reader thread                    the caller's thread
    ─────────────                    ───────────────────
    read a block, cut it ─ lines ─►  take all that wait ─► parse ─► model ─► outputs

A line that comes alone is answered at once; lines that came while the model was busy are computed
together, in their order. Lines of a file or a pipe wait, and so does who writes to the pipe; those
of a device would only grow old, so past some the oldest are dropped.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.columns import Array, Columns, Task, take
from mlopsdeploy.core.answers import (
    answered,
    counted,
    documents,
    each_label,
    each_row,
    numbers_of,
    shown,
)
from mlopsdeploy.core.model import Model, unread_in
from mlopsdeploy.edge.channel import Channel, Closed, feed
from mlopsdeploy.edge.events import Event, Report, iso
from mlopsdeploy.edge.lines.parsing import Parser
from mlopsdeploy.edge.lines.sources import Line, LineSource
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import MlopsDeployError, RowError

MOST = 1024  # lines computed together
FIRST = 16  # lines that wait at first; then two batches of them: more wait where they come from
LIVE = 128  # lines of a device that wait; older ones are dropped
TOGETHER = 0.1  # seconds that lines computed together take: the first of them waits for the last
TRUNCATED = "truncated"  # an output of texts, told only where it is true
JUDGED = 20  # texts, or all where there are fewer, by which the default model is found to be wrong


class Answer(NamedTuple):
    """What there is to say of a line.

    Attributes:
        line: the line.
        text: it as text; None if it is none.
        values: the answer, as `answers.document` has it; None where there is none.
        truncated: whether the text was longer than the model reads.
        unread: why the model doesn't read the text, such as its language; empty if it does.
        problem: why it was not scored; empty if it was, or there was nothing to score.
        header: whether it only names columns.
    """

    line: Line
    text: str | None
    values: Mapping[str, Any] | None = None
    truncated: bool = False
    unread: str = ""
    problem: str = ""
    header: bool = False

    @property
    def empty(self) -> bool:
        """Whether there was nothing to score."""
        return self.values is None and not self.problem and not self.header


class Form:
    """How answers become JSON: a line with nothing to answer has null for each part of one.

    Args:
        task: whose answers they are.
        echo: whether to write the line itself too.
    """

    def __init__(self, task: Task, *, echo: bool) -> None:
        self._nothing = dict.fromkeys(one.name for one in shown(task) if one.name != TRUNCATED)
        self._parts = task.answers
        self._echo = echo
        self._stamp = 0.0, ""

    def document(self, answer: Answer) -> dict[str, Any]:
        """An answer as an event."""
        line = answer.line
        if line.time != self._stamp[0]:  # lines that came together have one time
            self._stamp = line.time, iso(line.time)
        kind = "unreadable" if answer.problem else "header" if answer.header else "line"
        document: dict[str, Any] = {"event": kind, "time": self._stamp[1], "line": line.number}
        if answer.problem:
            document["reason"] = answer.problem
        elif not answer.header:
            values = self._nothing if answer.values is None else answer.values
            taken = {*document, "text"} if self._echo else document.keys()
            document |= {f"output_{key}" if key in taken else key: values[key] for key in values}
        if answer.truncated:
            document["truncated"] = True
        if answer.unread:
            document["unread"] = answer.unread
        if self._echo:
            document["text"] = answer.text
        return document

    def labels(self, answer: Answer) -> dict[str, int]:
        """What an answer says, in labels; "" for a part of it that has none."""
        if answer.values is None:
            return {"unreadable": 1} if answer.problem else {}
        return {
            f"{one.name} {answer.values[one.label] if one.label else ''}".strip(): 1
            for one in self._parts
        }

    def answer(self, answer: Answer) -> dict[str, Any]:
        """Its labels and numbers, and no arrays."""
        values = answer.values or {}
        names = [name for one in self._parts for name in (one.label, one.number) if name]
        return {name: values[name] for name in names}


class Answers:
    """Answers of lines that were computed together, as outputs get them; see `outputs.Found`."""

    something = True

    def __init__(self, answers: Sequence[Answer], form: Form) -> None:
        self.answers = answers
        self._form = form
        self._documents: list[dict[str, Any]] | None = None

    def documents(self) -> list[dict[str, Any]]:
        """An event for each, made once for all outputs."""
        if self._documents is None:
            self._documents = [self._form.document(answer) for answer in self.answers]
        return self._documents

    def labels(self) -> list[Mapping[str, int]]:
        """See `outputs.Found`."""
        return [self._form.labels(answer) for answer in self.answers]

    def state(self) -> dict[str, Any]:
        """See `outputs.Found`."""
        latest = next((one for one in reversed(self.answers) if one.values is not None), None)
        return {} if latest is None else {"answer": self._form.answer(latest)}


class LinePipeline:
    """A model on lines, and its answers to outputs.

    Args:
        model: of text, or of rows of numbers.
        parser: makes rows for it.
        source: of the lines.
        write: called with answers, in order.
        stats: counts.
        limit: stop after so many lines.
        report: gets what was dropped.
        patience: seconds without a line after which that is an event; None: it is none.
    """

    def __init__(
        self,
        model: Model,
        parser: Parser,
        source: LineSource,
        write: Callable[[Sequence[Answer]], None],
        stats: Stats,
        limit: int | None = None,
        *,
        report: Report,
        patience: float | None = None,
    ) -> None:
        self._model = model
        self._parse = parser
        self._source = source
        self._write = write
        self._stats = stats
        self._report = report
        self._limit = limit
        self._patience = patience
        self._waiting: Channel[Line] = Channel(LIVE if source.live else FIRST, keep=not source.live)
        self._stopped = threading.Event()
        self._together = 1  # lines at a time, then as many as `TOGETHER` is enough for
        self._next = 1
        self._judged = model.chosen
        self.working_since: float | None = None
        """When the model began with the lines that it has now; None: it has none."""
        self.ended = "end"
        """Why it ended: end, limit, or what was given to `stop`."""

    def run(self) -> None:
        """Until the source ends, the limit is reached, or `stop` is called.

        To be called in the thread that loaded the model.

        Raises:
            MlopsDeployError: the source or the model fails.
            InputError: nobody named a model, and the default one doesn't read most of the first
                texts; they are answered.
        """
        feed(self._read(), self._waiting, "lines", self._waiting.put_all)
        try:
            for lines in self._batches():
                started = time.perf_counter()
                self.working_since = time.monotonic()
                answers = self.answer(lines)
                self.working_since = None
                seconds = time.perf_counter() - started
                self._write(answers)
                self._stats.add("write", time.perf_counter() - started - seconds)
                self._stats.finish(
                    [answer.line.captured for answer in answers],
                    empty=sum(answer.empty for answer in answers),
                    unreadable=sum(bool(answer.problem) for answer in answers),
                )
                self._judge(JUDGED)
                fits = int(TOGETHER * len(lines) / max(seconds, 1e-9))
                self._together = min(max(fits, 1), 2 * self._together, MOST)
                if not self._source.live:
                    # So that a line waits for a moment, and a signal too, however slow the model.
                    self._waiting.resize(max(2 * self._together, FIRST))
            if self.ended in ("end", "limit"):
                self._judge(1)
        finally:
            self._source.stop()
            self._waiting.cancel()

    def stop(self, reason: str) -> None:
        """Let `run` end with the lines that wait answered. Callable from any thread."""
        if not self._stopped.is_set():
            self._stopped.set()
            self.ended = reason
        self._source.stop()
        self._waiting.close()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def _judge(self, least: int) -> None:
        """Once so many texts are scored: are they for the default model?

        Later ones are only counted: what has run for a day isn't ended by a line.
        """
        texts = self._stats.scored
        if not self._judged and texts >= least:
            self._judged = True
            self._model.check_unread(self._stats.unread, texts, self._source.name)

    def answer(self, lines: Sequence[Line]) -> list[Answer]:
        """What there is to say of each line."""
        started = time.perf_counter()
        answers = [_unscored(line) for line in lines]
        parsed = self._parse([answer.text for answer in answers])
        for place, problem in parsed.problems.items():
            answers[place] = answers[place]._replace(problem=problem)
        for place in parsed.headers:
            answers[place] = answers[place]._replace(header=True)
        parsed_at = time.perf_counter()
        if parsed.rows:
            for columns, rows in parsed.batches():
                self._score(columns, rows, answers)
        self._stats.add("parse", parsed_at - started)
        self._stats.add("model", time.perf_counter() - parsed_at)
        return answers

    def _score(self, columns: Columns, rows: list[int], answers: list[Answer]) -> None:
        try:
            predictions = self._model.predict_columns(columns)
        except RowError as error:
            for place in error.rows:
                row = rows[place]
                answers[row] = answers[row]._replace(problem=str(error))
            left = np.delete(np.arange(len(rows)), error.rows)
            if len(left):
                self._score(take(columns, left), [rows[place] for place in left], answers)
            return
        task = self._model.task
        has_answer = answered(task, predictions)
        known = has_answer.tolist()
        texts = task.data == "text"  # else these may be names of the model's own outputs
        beside = predictions if texts else {}
        unread = beside.get("unread", [""] * len(known))
        answers_of_rows = documents(task, predictions)
        lacking = _lacking(columns, len(known)).tolist()
        for place, (row, values) in enumerate(zip(rows, answers_of_rows, strict=True)):
            line, text, *_ = answers[row]
            truncated = bool(values.pop(TRUNCATED, False)) if texts else False
            if known[place]:
                answers[row] = Answer(line, text, values, truncated, unread[place])
            elif not lacking[place]:  # else the row lacks what the model can't do without
                problem = f"the model's {numbers_of(task)} is not a number"
                answers[row] = answers[row]._replace(problem=problem)
        self._stats.answered += sum(known)
        for one in task.answers:
            found = counted(task, one, predictions, np.flatnonzero(has_answer))
            numbers = () if found.numbers is None else found.numbers
            self._stats.note(one, each_label(task, found.labels), numbers)
        self._stats.unread += unread_in(beside)
        self._stats.models.update(beside.get("model", ()))

    def _batches(self) -> Iterator[list[Line]]:
        left = self._limit or sys.maxsize
        while left:
            try:
                lines = self._next_lines(min(self._together, left))
            except Closed:
                return
            gap = lines[0].number - self._next
            if gap:
                self._stats.dropped += gap
                text = f"{self._source.name}: {gap:,} lines dropped, as they came too fast"
                self._report(Event("dropped", text, {"first": self._next, "lines": gap}))
            self._next = lines[-1].number + 1
            yield lines
            left -= len(lines)
        self.ended = "limit" if not self._stopped.is_set() else self.ended

    def _next_lines(self, most: int) -> list[Line]:
        """Those that come next; that none come for long is an event, and so is that they do."""
        last = time.monotonic()
        try:
            return self._waiting.take_all(most, self._patience)
        except TimeoutError:
            silent = time.monotonic() - last
            facts = {"seconds": round(silent, 2)}
            self._source.happened("stalled", f"no line for {silent:.1f} s", **facts)
        lines = self._waiting.take_all(most)
        silent = lines[0].captured - last
        facts = {"seconds": round(silent, 2)}
        self._source.happened("resumed", f"lines again after {silent:.1f} s", **facts)
        return lines

    def _read(self) -> Iterator[list[Line]]:
        try:
            yield from self._source.blocks()
        except OSError as error:
            text = f"{self._source.name}: can't be read on ({error.strerror})"
            raise MlopsDeployError(text) from error


def _lacking(columns: Columns, rows: int) -> Array:
    """Which rows have a number missing, bool (rows,)."""
    lacking = np.zeros(rows, bool)
    for array in columns.values():
        if array.dtype.kind == "f":
            lacking |= each_row(np.isnan(array)) if array.ndim > 1 else np.isnan(array)
    return lacking


def _unscored(line: Line) -> Answer:
    if line.problem:
        return Answer(line, None, problem=line.problem)
    try:
        return Answer(line, line.data.decode())
    except UnicodeDecodeError:
        return Answer(line, None, problem="is not UTF-8")
