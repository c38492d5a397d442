"""What tasks of texts have in common: a tokenizer before, and long texts cut to what fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer

from mlopsdeploy.columns import (
    Array,
    Columns,
    DataKind,
    Fact,
    Field,
    ModelFiles,
    Runtime,
    Task,
    TaskOptions,
    objects,
)
from mlopsdeploy.core.languages import UNKNOWN, identifier, languages_of, not_read
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.tasks.text_pieces import Cutter

LONG_TEXT = ("head", "head-tail", "chunks")
BATCH_TOKENS = 1024
"""In a call of a transformer: more leave a core's cache."""
BATCH_TOKENS_OF_SMALL = 8192
SMALL = 8 << 20  # bytes; a graph whose layers are so few and narrow that calls themselves cost most

# The tokenizer remembers about 500 bytes for each token of a text until the call's last text is
# done. This many characters a call bound that to some 30 MB, and keep every core busy; of a longer
# text a sixteenth of that at a time.
_CHARACTERS = 2**18
# Where a text has more than so many characters for each token that the model takes, it is read
# piece by piece, a sixteenth of that at a time, and no further than the model sees.
_MANY = 64


class Texts(Task):
    """A tokenizer before; what the numbers behind mean is for its subclasses.

    Args:
        tokenizer: path of a `tokenizer.json`.
        max_length: the most tokens the model takes, special tokens included.
        long_text: what becomes of a text with more tokens than that. "head" takes the first ones;
            "head-tail" a quarter from the start and the rest from the end, where reviews and
            articles often conclude; the row is then marked `truncated`. "chunks" loses nothing: it
            cuts the text into as few windows as hold it, all of one length within a token and
            without overlap, and gives the mean of their answers. Windows of one length weigh every
            token of the text alike, so that no short rest of it counts for much.
        pad_id: the token that fills up shorter rows of a batch.
        pad_side: where it goes; XLNet classifies by the last token and needs "left".
        languages: ISO 639 codes of those that the model reads; empty where nobody says.

    Raises:
        ConfigError: `long_text` is none of the three.
        ModelError: the tokenizer's file can't be read, or its special tokens leave no room.

    Sources: head and tail, 128 + 382 of 510 tokens, and the mean over even fractions of a text: Sun
    et al. 2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1.
    """

    data: DataKind = "text"
    finds_objects = False
    inputs = (Field("text", "str"),)
    batch_cost = BATCH_TOKENS

    def __init__(
        self,
        tokenizer: Path,
        *,
        max_length: int = 512,
        long_text: str = "head",
        pad_id: int = 0,
        pad_side: str = "right",
        languages: Sequence[str] = (),
    ) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(
                f"{tokenizer}: not a tokenizer that can be read ({one_line(error)})"
            ) from error
        if long_text not in LONG_TEXT:
            raise ConfigError(f"long_text {long_text!r}: expected {', '.join(LONG_TEXT)}")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # what is cut off is counted, and cut in three ways
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._room = max_length - self._special
        if self._room < 1:
            raise ModelError(
                f"{tokenizer}: adds {self._special} special tokens to a text, but the model takes "
                f"only {max_length} tokens; mend max_position_embeddings or model_max_length"
            )
        self._long_text = long_text
        self._unknown_id = _unknown_id(self._tokenizer)
        self._space_id = self._tokenizer.token_to_id("▁")  # SentencePiece's mark of a word's start
        self.languages = tuple(languages)
        if languages:
            identifier()  # a package that is missing is an error now, not at some later text
        self._pad_id = pad_id
        self._pad_left = pad_side == "left"
        self._types = _token_types(self._tokenizer)

    @classmethod
    def _of_files(
        cls, files: ModelFiles, runtime: Runtime, options: TaskOptions, **more: Any
    ) -> Self:
        """The task of a model's files, with `more` for what it has beside a tokenizer."""
        if files.tokenizer is None:
            raise ModelError(
                f"{files.name}: has no tokenizer.json, nor what one could be made from; save it "
                "once with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
            )
        if by_token := [one for one in runtime.outputs if len(one.shape) > 1]:
            raise ModelError(
                f"{files.name}: its output {by_token[0].name!r} has numbers for each token, not "
                "for the text; is it a ...ForSequenceClassification?"
            )
        made = cls(
            files.tokenizer,
            max_length=files.max_length,
            long_text=options.long_text,
            pad_id=files.pad_id,
            pad_side=files.pad_side,
            languages=files.yaml.languages or (),
            **more,
        )
        made.facts = tuple(Fact(*fact) for fact in files.metadata.get("facts", ()))
        graph = files.graphs.get("onnx")
        # In a lower precision a score moves with the rows beside it: more with more of them.
        exact = files.precision == "float32"
        if exact and graph is not None and graph.stat().st_size < SMALL:
            made.batch_cost = BATCH_TOKENS_OF_SMALL
        return made

    def encode(self, columns: Columns) -> Columns:
        """Token ids per text (ragged int64) and, each int64 of shape (rows,), counts beside them.

        `windows` is how many rows of the tensors a text becomes; their ids, special tokens
        included, lie one after the other, as `np.array_split` would cut them. `tokens` is how many
        tokens the whole text has and `lost_tokens` how many of them are in no window; neither
        counts special tokens. `unread` says why the model can't read a text (str): the language
        that it is in, `UNKNOWN` where most of its tokens are, else "".

        The columns may have the texts' languages, where `language` is known before. Of a long text
        only so much is read as the model sees: `tokens` and `lost_tokens` are then at least so
        many, unless there is a column `count_all`.
        """
        ids, lengths = [], []
        given = columns["text"].tolist()
        whole = self._long_text != "head" or "count_all" in columns
        most = _CHARACTERS if whole else min(_MANY * self._room, _CHARACTERS)
        for texts in _parts(given, most):
            long = len(texts[0]) > most
            for row, length in self._long(texts[0], whole) if long else self._together(texts):
                ids.append(row)
                lengths.append(length)
        tokens = np.array(lengths, np.int64)
        chunks = self._long_text == "chunks"
        unread = self._unread(given, columns.get("language"))
        unread[(unread == "") & self._mostly_unknown(ids)] = UNKNOWN
        return {
            "input_ids": objects(ids),
            "windows": np.maximum(-(-tokens // self._room), 1) if chunks else np.ones_like(tokens),
            "tokens": tokens,
            "lost_tokens": np.zeros_like(tokens) if chunks else np.maximum(tokens - self._room, 0),
            "unread": unread,
        }

    def _unread(self, texts: list[str], languages: Array | None) -> Array:
        """The language of each text that is in another one than those that the model reads."""
        if not self.languages:
            return objects([""] * len(texts))
        found = languages_of(texts) if languages is None else languages
        return objects(not_read(self.languages, found.tolist()))

    def _mostly_unknown(self, ids: list[Array]) -> Array:
        """Whether more than half of each row's tokens are unknown.

        Special ones don't count, nor a space alone: before what SentencePiece doesn't know, which
        is one token however long it is, there is always one.
        """
        lengths = _lengths(ids)
        if self._unknown_id is None or not len(ids):
            return np.zeros(len(ids), bool)
        row, tokens = np.repeat(np.arange(len(ids)), lengths), np.concatenate(ids)
        unknown = np.bincount(row, tokens == self._unknown_id, len(ids))
        known = lengths - self._special - unknown
        if self._space_id is not None:
            known -= np.bincount(row, tokens == self._space_id, len(ids))
        mostly: Array = unknown > np.maximum(known, 0)
        return mostly

    def _together(self, texts: list[str]) -> Iterator[tuple[Array, int]]:
        """The ids of each text, as the model takes them, and how many tokens it has."""
        for encoding in self._tokenizer.encode_batch_fast(texts):
            row = np.array(encoding.ids, np.int64)
            tokens = len(row) - self._special
            if tokens > self._room:
                before = encoding.special_tokens_mask.index(0)  # [CLS]; some add only at the end
                row = self._fit(*np.split(row, [before, before + tokens]))
            yield row, tokens

    def _long(self, text: str, whole: bool) -> list[tuple[Array, int]]:
        """The same of one text, piece by piece, so that it may be of any length.

        Args:
            text: more than one call of the tokenizer should have.
            whole: or only the pieces up to the first token that the model doesn't see.
        """
        size = _CHARACTERS if whole else min(_MANY * self._room, _CHARACTERS)
        pieces = self._cutter.pieces(text, max(size // 16, 1))
        first = next(pieces)
        if first == text:
            return list(self._together([text]))
        encoding = self._tokenizer.encode_batch_fast([first])[0]
        special = encoding.special_tokens_mask
        shown = special if 0 in special else self._tokenizer.encode("a").special_tokens_mask
        if 0 not in shown:  # no token shows where special ones go
            return list(self._together([text]))
        before = shown.index(0)
        start, ids, end = np.split(
            np.array(encoding.ids, np.int64), [before, before + len(special) - self._special]
        )
        tokens = len(ids)
        found = [ids]
        for part in _parts(pieces, _CHARACTERS if whole else 0):
            if tokens > self._room and not whole:
                break
            more = self._tokenizer.encode_batch_fast(part, add_special_tokens=False)
            found += [np.array(piece.ids, np.int32) for piece in more]
            tokens += sum(map(len, more))
            if self._long_text != "chunks":  # what lies between is in no window
                ids = np.concatenate(found)
                found = [ids[: self._room], ids[self._room :][-self._room :]]
        ids = np.concatenate(found, dtype=np.int64)
        row = (
            self._fit(start, ids, end) if tokens > self._room else np.concatenate([start, ids, end])
        )
        return [(row, tokens)]

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._tokenizer)

    def _fit(self, start: Array, ids: Array, end: Array) -> Array:
        """The ids of a text that is too long, between special ones, as ids that the model takes."""
        if self._long_text == "head":
            return np.concatenate([start, ids[: self._room], end])
        if self._long_text == "head-tail":
            head = -(-self._room // 4)
            return np.concatenate([start, ids[:head], ids[len(ids) - (self._room - head) :], end])
        windows = np.array_split(ids, -(-len(ids) // self._room))
        return np.concatenate([part for window in windows for part in (start, window, end)])

    def cost(self, encoded: Columns) -> Array:
        """Tokens per text, each of its windows padded to the longest of them."""
        ids, windows = encoded["input_ids"], encoded["windows"]
        cost: Array = -(-_lengths(ids) // windows) * windows
        return cost

    def collate(self, encoded: Columns) -> Columns:
        """`input_ids`, `attention_mask` and `token_type_ids`, int64 of shape (windows, longest).

        As many rows as texts, or more where a text has several windows.
        """
        ids, windows = encoded["input_ids"].tolist(), encoded["windows"]
        if windows.max(initial=1) > 1:
            pairs = zip(ids, windows.tolist(), strict=True)
            ids = [window for row, count in pairs for window in np.array_split(row, count)]
        lengths = _lengths(ids)
        if not lengths.all():
            raise RowError("no token is left of this text", np.flatnonzero(lengths == 0).tolist())
        longest = int(lengths.max(initial=1))
        position = np.arange(longest)
        if self._pad_left:
            position = position[::-1]
        mask = position < lengths[:, None]
        input_ids = np.full(mask.shape, self._pad_id, np.int64)
        token_types = np.zeros_like(input_ids)
        if len(lengths):
            input_ids[mask] = np.concatenate(ids)
            if self._types:
                token_types[mask] = np.concatenate([self._types_of(row) for row in ids])
        return {
            "input_ids": input_ids,
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": token_types,
        }

    def _types_of(self, row: Array) -> Array:
        start, own, end = self._types or ((), 0, ())
        inside = np.full(len(row) - len(start) - len(end), own)
        return np.concatenate([start, inside, end], dtype=np.int64)

    def _answers(self, tensors: Columns, encoded: Columns, width: int) -> Array:
        """The model's numbers, float32 of shape (windows, width)."""
        logits = np.asarray(tensors[answer_in(tensors)], np.float32)
        rows = int(encoded["windows"].sum())
        if logits.shape != (rows, width):
            raise ModelError(
                f"the model answers with an array of shape {logits.shape} to {rows} rows, but has "
                f"{width} labels; is it a text classifier?"
            )
        return logits

    @staticmethod
    def _of_texts(values: Array, windows: Array) -> Array:
        """The mean over each text's windows, float32 of shape (texts, width)."""
        if len(values) > len(windows):
            first = np.cumsum(windows) - windows
            sums = np.add.reduceat(values, first, axis=0, dtype=np.float64)
            values = (sums / windows[:, None]).astype(np.float32)
        return values

    @staticmethod
    def _beside(encoded: Columns) -> Columns:
        """What is known of the texts themselves: see `TextClassification.decode`."""
        return {
            "truncated": encoded["lost_tokens"] > 0,
            "tokens": encoded["tokens"],
            "lost_tokens": encoded["lost_tokens"],
            "unread": encoded["unread"],
        }


def _token_types(tokenizer: Tokenizer) -> tuple[Array, int, Array] | None:
    """The types of what stands before a text, of its own tokens and behind; None where all are 0.

    XLNet and Funnel tell their [CLS] by its type.
    """
    if not any(tokenizer.encode("").type_ids):
        return None
    one = tokenizer.encode("a")
    special = one.special_tokens_mask
    if 0 not in special:
        return None
    before, after = special.index(0), special[::-1].index(0)
    types = np.array(one.type_ids, np.int64)
    return types[:before], int(types[before]), types[len(types) - after :]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token of what is in no vocabulary; None where everything is, as among bytes."""
    try:
        found = tokenizer.model.tokenize("\U0010fffd")  # a character that never will be one
    except Exception:  # noqa: BLE001  (a model without one fails at any such text, with its own words)
        return None
    return found[0].id if len(found) == 1 else None


def _lengths(rows: Sequence[Array] | Array) -> Array:
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))


def _parts(texts: Iterable[str], alone: int) -> Iterator[list[str]]:
    """The texts in turn, as many at a time as have `_CHARACTERS` together.

    One that is longer than `alone` is alone.
    """
    part: list[str] = []
    characters = 0
    for text in texts:
        characters += len(text)
        if part and (characters > _CHARACTERS or max(len(text), len(part[0])) > alone):
            yield part
            part, characters = [], len(text)
        part.append(text)
    if part:
        yield part


def answer_in(names: Iterable[str]) -> str:
    """The output that a text's numbers are read from: `logits`, else the first."""
    listed = list(names)
    return listed[0] if listed and "logits" not in listed else "logits"
