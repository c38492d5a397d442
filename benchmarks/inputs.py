"""The benchmark's inputs, made by code from a fixed seed.

Reviews are English-like: words drawn by rank (Zipf) from the tokenizer's own whole words, so each
word and each punctuation mark is one token and every length is known without tokenising. Lengths
are log-normal, median 35 tokens, cut at 512 (mean 58).

Rows come in blocks of 128. Every block holds the same 128 lengths, the mid-quantiles of the
distribution, in an order of its own. So any whole number of blocks has exactly the same lengths,
and rates measured on prefixes of different size compare row for row.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

SEED = 20
BLOCK = 128
MEDIAN_TOKENS, SIGMA, MIN_TOKENS, MAX_TOKENS = 35, 1.02, 6, 512
SPECIAL_TOKENS = 2
VOCABULARY_WORDS = 6000
SENTENCE_WORDS = (5, 18)
FEATURES = 20


def block_lengths() -> list[int]:
    """The token counts of every block, special tokens included."""
    normal = NormalDist()
    quantiles = [normal.inv_cdf((i + 0.5) / BLOCK) for i in range(BLOCK)]
    lengths = [round(MEDIAN_TOKENS * np.exp(SIGMA * z)) for z in quantiles]
    return [min(max(length, MIN_TOKENS), MAX_TOKENS) for length in lengths]


def vocabulary(tokenizer: Path) -> list[str]:
    """Whole lower-case words of the tokenizer, the frequent ones first."""
    model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    whole = [word for word in words if word.isascii() and word.isalpha() and word.islower()]
    return [word for word in whole if len(word) > 1 or word in "ai"][:VOCABULARY_WORDS]


class Writer:
    """Writes texts of an exact token count, never the same text twice."""

    def __init__(self, words: Sequence[str], seed: int = SEED) -> None:
        self._words = np.array(words)
        weights = 1 / (np.arange(len(words)) + 2.7)
        self._cumulative = np.cumsum(weights / weights.sum())
        self._random = np.random.default_rng(seed)
        self._seen: set[str] = set()

    def text(self, tokens: int) -> str:
        while True:
            text = self._draft(tokens - SPECIAL_TOKENS)
            if text not in self._seen:
                self._seen.add(text)
                return text

    def block(self) -> list[str]:
        """128 texts of the block's lengths, shuffled."""
        lengths = self._random.permutation(block_lengths())
        return [self.text(int(length)) for length in lengths]

    def _draft(self, pieces: int) -> str:
        ranks = np.searchsorted(self._cumulative, self._random.random(pieces))
        words: list[str] = self._words[np.minimum(ranks, len(self._words) - 1)].tolist()
        sentences = []
        while words:
            size = int(self._random.integers(*SENTENCE_WORDS)) + 1  # the full stop is a token
            if len(words) - size < SENTENCE_WORDS[0]:
                size = len(words)
            part, words = words[:size], words[size:]
            ending = "!" if self._random.random() < 0.2 else "."
            sentences.append(" ".join(part[:-1]).capitalize() + ending)
        return " ".join(sentences)


def write_reviews(path: Path, rows: Iterator[str]) -> None:
    """A review file: review_id, review_text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("review_id", "review_text"))
        writer.writerows((number, text) for number, text in enumerate(rows, 1))


def reviews(words: Sequence[str], rows: int) -> Iterator[str]:
    """The first `rows` reviews."""
    writer = Writer(words)
    while rows > 0:
        yield from writer.block()[:rows]
        rows -= BLOCK


def short_texts(words: Sequence[str], rows: int) -> Iterator[str]:
    """Texts of six to twelve words for the memory test; made fast, repeats possible."""
    generator = np.random.default_rng(SEED)
    table = np.array(words)
    for start in range(0, rows, 10_000):
        count = min(10_000, rows - start)
        sizes = generator.integers(6, 13, count)
        drawn = iter(table[generator.integers(0, len(table), int(sizes.sum()))].tolist())
        for size in sizes:
            yield " ".join(next(drawn) for _ in range(size))


def write_table(path: Path, rows: int) -> None:
    """An identifier, 20 numbers, one text category."""
    pa: Any = importlib.import_module("pyarrow")
    pa_csv: Any = importlib.import_module("pyarrow.csv")
    generator = np.random.default_rng(SEED)
    columns: dict[str, Any] = {"customer_id": pa.array(np.arange(1, rows + 1))}
    for feature in range(FEATURES):
        values = generator.normal(size=rows).round(4)
        columns[f"feature_{feature:02d}"] = pa.array(values)
    plans = np.array(["basic", "family", "premium", "student"])
    columns["plan"] = pa.array(plans[generator.integers(0, len(plans), rows)])
    pa_csv.write_csv(pa.table(columns), path)
