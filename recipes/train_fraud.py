"""Train the built-in fraud model: a small Keras network that takes raw card transactions.

    python recipes/train_fraud.py --data ulb_train.csv

Needs tensorflow (Keras 3), ai-edge-litert, numpy and pyyaml. Writes `model.keras`,
`model.tflite` and `model.yaml` in `mlopsdeploy/builtin/fraud/`, and `examples/transactions.csv`;
prints what was measured as JSON. Takes a minute on two cores. Everything random has a seed: another
run on the same machine and versions writes the same bytes.

DATA is a CSV with the columns Time, V1 to V28, Amount, Class (1 is fraud): here an excerpt of
7,698 rows of the ULB credit card set, which has 284,807, with 330 of its 492 frauds.

1. **Split.** 60 % train, 20 % validation, 20 % test, stratified. Fraudsters use a card again and
   again within minutes, so near-copies (the same amount, V1 to V28 nearly equal) form groups, and
   a group never crosses a border: else a fraud may be tested on after its twin was learnt.
2. **Time is not used.** A caller sends it, as the data set has it, and its weights are zero. In
   this excerpt 2,636 of 7,368 legitimate transactions are from the first hour, and 2 of 330 frauds:
   a network would learn how the excerpt was cut.
3. **Choices** (scale, width, weight decay, epochs) were made by five-fold cross-validation within
   train and validation; `--compare` repeats its last round and writes nothing. Around the choice
   made, all differences are within the noise.
4. **The network** is the average, before the sigmoid, of several networks that differ in their
   seed only. Each has one hidden layer, so their average is again one network with one hidden
   layer, only wider: it is written as such.
5. **The threshold** is where F1 on the validation split is highest: the middle (in logits) of the
   widest gap between scores that gives it.
6. The test split is scored last, by the model that is written; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import yaml
from ai_edge_litert.interpreter import Interpreter

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

REPOSITORY = Path(__file__).parents[1]
BUILT_IN = REPOSITORY / "mlopsdeploy" / "builtin" / "fraud"
EXAMPLES = REPOSITORY / "examples" / "transactions.csv"
VERSION = "1.0.0"
FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
SEED = 20
HOUR, DAY = 3600, 86400  # seconds
PREVALENCE = 0.0017  # of fraud in the full data set
BATCH = 128
NEAR = 2.0  # distance over V1 to V28, in standard deviations of legitimate transactions


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        spread: standard deviations that a feature is divided by before the tanh that bounds it.
        units: width of the hidden layer of one network.
        decay: weight decay of AdamW.
        epochs: passes over the training rows; the learning rate falls to zero over them.
        members: networks in the average.
    """

    spread: float = 3.0
    units: int = 16
    decay: float = 1.0
    epochs: int = 20
    members: int = 8


@dataclass(frozen=True)
class Rows:
    """Transactions: features of shape (rows, 30), labels (1 is fraud) and group numbers."""

    features: Floats
    labels: Ints
    groups: Ints

    def take(self, places: Ints) -> Rows:
        """Some of them."""
        return Rows(self.features[places], self.labels[places], self.groups[places])


# --- data ---------------------------------------------------------------------------------------


def read(path: Path) -> Rows:
    """The file's rows, exact copies dropped."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [[float(row[name]) for name in (*FEATURES, "Class")] for row in csv.DictReader(file)]
    table = np.array(list(dict.fromkeys(map(tuple, rows))))
    features, labels = table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)
    return Rows(features, labels, _near_copies(features, labels))


def _near_copies(features: Floats, labels: Ints) -> Ints:
    """A group number per row: rows of one amount and nearly one V1 to V28 share it."""
    spread = features[labels == 0, 1:29].std(axis=0)
    points = features[:, 1:29] / spread
    groups = np.arange(len(points))
    for amount in np.unique(features[:, 29]):
        same = np.flatnonzero(features[:, 29] == amount)
        for place, row in enumerate(same):
            rest = same[place + 1 :]
            near = rest[np.linalg.norm(points[rest] - points[row], axis=1) < NEAR]
            for other in near:
                groups[groups == groups[other]] = groups[row]
    return groups


def split(rows: Rows, shares: tuple[float, ...], seed: int) -> list[Ints]:
    """Places of rows per part, stratified by class, whole groups each; shares sum to 1."""
    generator = np.random.default_rng(seed)
    parts: list[list[Ints]] = [[] for _ in shares]
    with_fraud = np.unique(rows.groups[rows.labels == 1])
    others = np.setdiff1d(rows.groups, with_fraud)
    for names, counted in ((with_fraud, rows.labels), (others, 1 - rows.labels)):
        members = [np.flatnonzero(rows.groups == name) for name in generator.permutation(names)]
        wanted = np.array(shares) * sum(counted[places].sum() for places in members)
        for places in members:
            part = int(np.argmax(wanted))
            parts[part].append(places)
            wanted[part] -= counted[places].sum()
    return [np.sort(np.concatenate(part)) for part in parts]


# --- the network --------------------------------------------------------------------------------


def fit(rows: Rows, choice: Choice) -> keras.Model:
    """The network that users get: trained on all the given rows, for 30 raw values a row."""
    members = [_member(rows, choice, seed) for seed in range(choice.members)]
    scale = keras.layers.Normalization(name="scale")
    scale.adapt(rows.features)
    transaction = keras.Input((len(FEATURES),), name="transaction")
    hidden = keras.layers.Activation("tanh", name="bound")(_spread(scale, choice)(transaction))
    hidden = keras.layers.Dense(choice.members * choice.units, "relu", name="hidden")(hidden)
    answer = keras.layers.Dense(1, "sigmoid", name="fraud_probability")(hidden)
    model = keras.Model(transaction, answer, name="fraud")
    weights = [member.get_weights() for member in members]
    kernel, bias, answer_kernel, answer_bias = (
        [member[place] for member in weights] for place in (-4, -3, -2, -1)
    )
    no_time = np.zeros((1, choice.members * choice.units), np.float32)
    model.get_layer("hidden").set_weights(
        [np.vstack([no_time, np.hstack(kernel)]), np.concatenate(bias)]
    )
    model.get_layer("fraud_probability").set_weights(
        [np.vstack(answer_kernel) / choice.members, np.mean(answer_bias, axis=0)]
    )
    return model


def _member(rows: Rows, choice: Choice, seed: int) -> keras.Model:
    """One of the networks that are averaged; it sees everything but Time."""
    keras.utils.set_random_seed(seed)
    seen = rows.features[:, 1:]
    scale = keras.layers.Normalization()
    scale.adapt(seen)
    given = keras.Input((seen.shape[1],))
    hidden = keras.layers.Activation("tanh")(_spread(scale, choice)(given))
    hidden = keras.layers.Dense(choice.units, "relu")(hidden)
    model = keras.Model(given, keras.layers.Dense(1, "sigmoid")(hidden))
    steps = choice.epochs * -(-len(seen) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(0.01, steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=choice.decay), "binary_crossentropy")
    model.fit(seen, rows.labels, BATCH, choice.epochs, verbose=0)
    return model


def _spread(adapted: keras.layers.Normalization, choice: Choice) -> keras.layers.Normalization:
    return keras.layers.Normalization(
        mean=np.ravel(adapted.mean).tolist(),
        variance=(np.ravel(adapted.variance) * choice.spread**2).tolist(),
        name=adapted.name,
    )


def score(model: keras.Model, rows: Rows) -> Floats:
    """The probability of fraud, shape (rows,)."""
    return np.ravel(np.asarray(model(rows.features)))


def compare(rows: Rows) -> dict[str, dict[str, float]]:
    """Measures by five-fold cross-validation of the choice made and of its neighbours."""
    base = Choice(members=2)
    choices = [base]
    neighbours: dict[str, tuple[Any, ...]] = {
        "spread": (1.5, 6.0),
        "units": (8, 32, 64),
        "decay": (0.1, 0.3, 3.0),
        "epochs": (10, 40),
    }
    for name, values in neighbours.items():
        choices += [replace(base, **{name: value}) for value in values]
    folds = split(rows, (0.2,) * 5, seed=1)
    measured = {}
    for choice in choices:
        scores = np.empty(len(rows.labels), np.float32)
        for fold in folds:
            others = np.setdiff1d(np.arange(len(scores)), fold)
            scores[fold] = score(fit(rows.take(others), choice), rows.take(fold))
        measured[str(choice)] = _areas(rows.labels, scores)
    return measured


# --- measures -----------------------------------------------------------------------------------


def roc_auc(labels: Ints, scores: Floats) -> float:
    """Area under the ROC curve: how often a fraud outranks a legitimate one; ties count half."""
    fraud, legitimate = scores[labels == 1], np.sort(scores[labels == 0])
    below = np.searchsorted(legitimate, fraud, "left") + np.searchsorted(legitimate, fraud, "right")
    return float(below.mean() / 2 / len(legitimate))


def average_precision(labels: Ints, scores: Floats) -> float:
    """Mean of the precision over the frauds, each taken at its own score as the threshold."""
    fraud, everything = np.sort(scores[labels == 1]), np.sort(scores)
    caught = len(fraud) - np.searchsorted(fraud, fraud, "left")
    flagged = len(everything) - np.searchsorted(everything, fraud, "left")
    return float(np.mean(caught / flagged))


def _areas(labels: Ints, scores: Floats) -> dict[str, float]:
    return {
        "roc_auc": round(roc_auc(labels, scores), 4),
        "average_precision": round(average_precision(labels, scores), 4),
    }


def _intervals(rows: Rows, scores: Floats, draws: int = 2000) -> dict[str, list[float]]:
    """95 % bootstrap intervals; whole groups are drawn, with and without fraud separately."""
    generator = np.random.default_rng(SEED)
    with_fraud = np.unique(rows.groups[rows.labels == 1])
    members = {name: np.flatnonzero(rows.groups == name) for name in np.unique(rows.groups)}
    strata = (with_fraud, np.setdiff1d(rows.groups, with_fraud))
    found: dict[str, list[float]] = {"roc_auc": [], "average_precision": []}
    for _ in range(draws):
        drawn = [generator.choice(names, len(names)) for names in strata]
        places = np.concatenate([members[name] for name in np.concatenate(drawn)])
        found["roc_auc"].append(roc_auc(rows.labels[places], scores[places]))
        found["average_precision"].append(average_precision(rows.labels[places], scores[places]))
    return {
        name: np.percentile(values, (2.5, 97.5)).round(3).tolist() for name, values in found.items()
    }


def choose_threshold(labels: Ints, scores: Floats) -> float:
    """The threshold of the highest F1: the middle, in logits, of the widest gap that gives it."""
    logits = np.log(scores.astype(np.float64)) - np.log1p(-scores.astype(np.float64))
    cuts = np.unique(logits)
    flagged = len(logits) - np.searchsorted(np.sort(logits), cuts, "left")
    fraud = np.sort(logits[labels == 1])
    caught = len(fraud) - np.searchsorted(fraud, cuts, "left")
    f1 = 2 * caught / (flagged + len(fraud))
    gaps = np.diff(cuts, prepend=cuts[0])  # a cut works for all thresholds down to its neighbour
    best = max(np.flatnonzero(f1 == f1.max()), key=lambda place: gaps[place])
    return round(float(1 / (1 + np.exp(gaps[best] / 2 - cuts[best]))), 3)


def _at(threshold: float, labels: Ints, scores: Floats) -> dict[str, Any]:
    """The confusion matrix, and what its rates mean where one payment in 600 is fraud."""
    flagged, fraud = scores >= threshold, labels == 1
    caught, false_alarms = int((flagged & fraud).sum()), int((flagged & ~fraud).sum())
    recall = caught / int(fraud.sum())
    alarm_rates = _wilson(false_alarms, int((~fraud).sum()))
    return {
        "caught": caught,
        "missed": int((~flagged & fraud).sum()),
        "false_alarms": false_alarms,
        "passed": int((~flagged & ~fraud).sum()),
        "recall_interval": _wilson(caught, int(fraud.sum())),
        "false_positive_rate_interval": alarm_rates,
        "precision_here": round(caught / (caught + false_alarms), 3),
        "precision_at_real_prevalence": [
            round(PREVALENCE * recall / (PREVALENCE * recall + (1 - PREVALENCE) * rate), 3)
            for rate in reversed(alarm_rates)
        ],
    }


def _wilson(hits: int, count: int) -> list[float]:
    """The 95 % interval of a rate by Wilson's score, which holds for rates near 0 too."""
    z, rate = 1.96, hits / count
    middle = rate + z**2 / (2 * count)
    half = z * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return [round(float((middle + sign * half) / (1 + z**2 / count)), 4) for sign in (-1, 1)]


def _on_the_second_day(rows: Rows) -> dict[str, float]:
    """The same recipe, trained on the first day and scored on the second: what drift costs."""
    first, second = (
        rows.take(np.flatnonzero(chosen))
        for chosen in (rows.features[:, 0] < DAY, rows.features[:, 0] >= DAY)
    )
    crossing = np.isin(second.groups, first.groups)
    second = second.take(np.flatnonzero(~crossing))
    return _areas(second.labels, score(fit(first, Choice()), second))


# --- what is written ----------------------------------------------------------------------------


def save(model: keras.Model) -> None:
    """Write `model.keras` and `model.tflite`, the latter for any number of rows."""
    BUILT_IN.mkdir(parents=True, exist_ok=True)
    model.save(BUILT_IN / "model.keras")
    _settle(BUILT_IN / "model.keras")

    def answer(transaction: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"fraud_probability": model(transaction)}

    # By way of a SavedModel, because it keeps the names of input and output; a concrete function
    # given to the converter directly loses either these or, silently, the weights.
    given = tf.TensorSpec((None, len(FEATURES)), tf.float32, name="transaction")
    with tempfile.TemporaryDirectory() as scratch:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", answer, [given])
        archive.write_out(scratch, verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(scratch).convert()
    (BUILT_IN / "model.tflite").write_bytes(content)


def _settle(path: Path) -> None:
    """Take dates and memory addresses out of a `.keras` file: the same model, the same bytes."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(contents["metadata.json"])
    contents["metadata.json"] = json.dumps({**metadata, "date_saved": ""}).encode()
    numbers: dict[bytes, bytes] = {}
    contents["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: numbers.setdefault(found[0], b"%d" % (len(numbers) + 1)),
        contents["config.json"],
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def prove(rows: Rows) -> float:
    """The largest difference between the two files, on real rows and on absurd ones.

    Raises:
        RuntimeError: they differ by more than 1e-6, or answer with what is no probability.
    """
    absurd = [[0.0] * 30, [1e30] * 30, [-1e30] * 30, [1e30, -1e30] * 15, [1e-30] * 30]
    wild = np.random.default_rng(SEED).normal(0, 1e3, (1000, 30)).astype(np.float32)
    values = np.concatenate([rows.features, np.array(absurd, np.float32), wild])
    kept = keras.saving.load_model(BUILT_IN / "model.keras", safe_mode=True)
    expected = np.asarray(kept(values))
    interpreter = Interpreter(str(BUILT_IN / "model.tflite"))
    place = interpreter.get_input_details()[0]["index"]
    largest = 0.0
    for count in (len(values), 1, 7):  # rows at a time may become fewer, and more again
        interpreter.resize_tensor_input(place, [count, len(FEATURES)])
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, values[:count])
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        largest = max(largest, float(np.abs(found - expected[:count]).max()))
    if not (largest <= 1e-6 and ((expected >= 0) & (expected <= 1)).all()):
        raise RuntimeError(f"model.tflite differs from model.keras by {largest}")
    return largest


def describe(threshold: float, rows: Rows) -> None:
    """Write `model.yaml`; its example is the legitimate row nearest to the medians."""
    usual = rows.features[(rows.labels == 0) & (rows.features[:, 0] > HOUR)]
    far = np.abs(usual - np.median(usual, axis=0)) / usual.std(axis=0)
    example = _rounded(usual[far.sum(axis=1).argmin()])
    files = ("model.keras", "model.tflite")
    said = {
        "name": "fraud",
        "version": VERSION,
        "task": "tabular_classification",
        "labels": ["legitimate", "fraud"],
        "features": list(FEATURES),
        "threshold": threshold,
        "example": dict(zip(FEATURES, example, strict=True)),
        "serve": {
            "route": "/detect_fraud",
            "input": "transaction_data",
            "answer": {
                "is_fraud": "label == fraud",
                "score": "scores.fraud",
                "threshold": "threshold",
                "model": "model",
                "version": "version",
            },
        },
        "sha256": {
            name: hashlib.sha256((BUILT_IN / name).read_bytes()).hexdigest() for name in files
        },
    }
    header = "# Written by recipes/train_fraud.py; MODEL_CARD.md tells what is behind it.\n"
    text = yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=98)
    (BUILT_IN / "model.yaml").write_text(header + text, "utf-8")


def invent(rows: Rows) -> Floats:
    """Write `examples/transactions.csv`: 188 legitimate and 12 fraudulent rows that nobody made.

    Drawn per class from a Gaussian copula: the columns have the distributions and rank
    correlations of the given rows. Ordered by Time, and not labelled.
    """
    generator = np.random.default_rng(SEED)
    rows = rows.take(np.flatnonzero(rows.features[:, 0] > HOUR))
    drawn = []
    for label, count in ((0, 188), (1, 12)):
        real = rows.features[rows.labels == label]
        ranks = (real.argsort(axis=0).argsort(axis=0) + 0.5) / len(real)
        normal = np.vectorize(NormalDist().inv_cdf)(ranks)
        correlated = generator.multivariate_normal(
            np.zeros(len(FEATURES)), np.corrcoef(normal, rowvar=False), count
        )
        places = np.vectorize(NormalDist().cdf)(correlated)
        drawn.append(
            np.column_stack(
                [np.quantile(real[:, column], places[:, column]) for column in range(30)]
            )
        )
    table = np.concatenate(drawn)
    table = table[table[:, 0].argsort()]
    lines = [",".join(map(str, _rounded(row))) for row in table]
    EXAMPLES.write_text("\n".join([",".join(FEATURES), *lines, ""]), "utf-8")
    return table.astype(np.float32)


def _rounded(row: npt.NDArray[np.floating[Any]]) -> list[float]:
    """A transaction as people write it: whole seconds, four decimals, cents."""
    time, *components, amount = row.tolist()
    return [round(time), *(round(value, 4) for value in components), round(amount, 2)]


def main() -> None:
    """Train, choose the threshold, write, prove, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--compare", action="store_true", help="cross-validate choices instead")
    arguments = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    rows = read(arguments.data)
    places = split(rows, (0.6, 0.2, 0.2), SEED)
    train, validation, test = (rows.take(part) for part in places)
    if arguments.compare:
        print(json.dumps(compare(rows.take(np.concatenate(places[:2]))), indent=2))
        return
    model = fit(train, Choice())
    on_validation = score(model, validation)
    threshold = choose_threshold(validation.labels, on_validation)
    save(model)
    describe(threshold, train)
    difference = prove(validation)
    invented = score(model, Rows(invent(train), np.empty(0, np.int64), np.empty(0, np.int64)))
    on_test = score(model, test)
    later = test.features[:, 0] > HOUR
    report = {
        "rows": {
            name: {"all": len(part.labels), "fraud": int(part.labels.sum())}
            for name, part in (("train", train), ("validation", validation), ("test", test))
        },
        "threshold": threshold,
        "largest_difference_of_the_files": difference,
        "invented_rows_flagged": int((invented >= threshold).sum()),
        "validation": {
            **_areas(validation.labels, on_validation),
            **_at(threshold, validation.labels, on_validation),
        },
        "test": {**_areas(test.labels, on_test), **_at(threshold, test.labels, on_test)},
        "test_intervals": _intervals(test, on_test),
        "test_without_the_first_hour": _areas(test.labels[later], on_test[later]),
        "second_day_after_training_on_the_first": _on_the_second_day(rows),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
