"""Tokens before, labels after."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, processors
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace, Whitespace

from mlopsdeploy.columns import ModelFiles, TaskOptions, objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.tasks import texts as texts_module
from mlopsdeploy.tasks.text_classification import TextClassification

RUNTIME = SimpleNamespace(outputs=())


@pytest.fixture(scope="module")
def tokenizer(bert_checkpoint):
    return bert_checkpoint / "tokenizer.json"


def encoded(task, *texts):
    return task.encode({"text": objects(list(texts))})


@pytest.mark.parametrize(("side", "mask"), [("right", [1, 1, 1, 0]), ("left", [0, 1, 1, 1])])
def test_shorter_rows_are_padded_on_the_models_side(tokenizer, side, mask):
    task = TextClassification(tokenizer, ("A", "B"), pad_id=7, pad_side=side)
    tensors = task.collate(encoded(task, "good", "good battery"))
    assert tensors["attention_mask"][0].tolist() == mask
    assert tensors["input_ids"][0][mask.index(0)] == 7
    assert tensors["input_ids"].shape == tensors["token_type_ids"].shape == (2, 4)


def decoded(tokenizer, logits, **options):
    logits = np.array(logits, np.float32)
    names = tuple("ABC"[: logits.shape[1]])
    task = TextClassification(tokenizer, names, **options)
    return task.decode({"logits": logits}, encoded(task, *["good"] * len(logits)))


def test_two_labels(tokenizer):
    got = decoded(tokenizer, [[2, 0], [0, 2]])
    assert got["label"].tolist() == ["A", "B"]
    np.testing.assert_allclose(got["score"], 1 / (1 + np.exp(-2)), rtol=1e-5)
    strict = decoded(tokenizer, [[0, 2], [0, 4]], threshold=0.9)
    assert strict["label"].tolist() == ["A", "B"]
    np.testing.assert_allclose(strict["score"][0], 1 - 1 / (1 + np.exp(-2)), rtol=1e-5)


def test_three_labels_and_a_threshold(tokenizer):
    got = decoded(tokenizer, [[3, 0, 0], [0.1, 0, 0]], threshold=0.6)
    assert got["label"].tolist() == ["A", ""]


def test_multi_label(tokenizer):
    got = decoded(tokenizer, [[3, -3, 3], [-3, -3, -3]], multi_label=True)
    assert got["label"].tolist() == ["A|C", ""]
    np.testing.assert_allclose(got["score"], [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))], rtol=1e-4)


@pytest.mark.parametrize(
    ("logits", "options", "margin"),
    [
        ([[0.0, 0.0]], {}, 0.0),
        ([[0.0, 0.0]], {"threshold": 0.8}, 0.3),
        ([[0.0, 0.0, 0.0]], {}, 0.0),
        ([[0.0, 0.0, 0.0]], {"multi_label": True, "threshold": 0.9}, 0.4),
    ],
)
def test_margin_is_the_way_to_another_label(tokenizer, logits, options, margin):
    assert decoded(tokenizer, logits, **options)["margin"][0] == pytest.approx(margin, abs=1e-6)


def test_extreme_logits_do_not_overflow(tokenizer):
    assert np.isfinite(decoded(tokenizer, [[1e4, -1e4]])["scores"]).all()
    assert np.isfinite(decoded(tokenizer, [[1e4, -1e4]], multi_label=True)["scores"]).all()


def test_a_model_that_is_no_classifier(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"))
    with pytest.raises(ModelError, match="is it a text classifier"):
        task.decode({"hidden": np.zeros((1, 4, 32), np.float32)}, encoded(task, "good"))


def test_a_broken_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="not a tokenizer that can be read"):
        TextClassification(tmp_path / "tokenizer.json", ("A", "B"))


# ---------------------------------------------------------------- what is not read

PLAIN = {token: place for place, token in enumerate(["<unk>", "▁", "▁good", "good", *"godba,."])}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [(token, -float(place)) for token, place in PLAIN.items()]
WITH_BYTES = PIECES + [(byte, -99.0) for byte in BYTES]
TOKENIZERS = {
    "WordPiece": models.WordPiece(PLAIN, unk_token="<unk>"),
    "words": models.WordLevel(PLAIN, unk_token="<unk>"),
    "words without": models.WordLevel({"good": 0}, unk_token="<unk>"),
    "BPE": models.BPE(PLAIN, [], unk_token="<unk>"),
    "BPE, unknown ones as one": models.BPE(PLAIN, [], unk_token="<unk>", fuse_unk=True),
    "BPE without": models.BPE(PLAIN, []),
    "bytes": models.BPE({letter: place for place, letter in enumerate(ByteLevel.alphabet())}, []),
    "Unigram": models.Unigram(PIECES, 0, False),
    "Unigram without": models.Unigram(PIECES[1:], None, False),
    "Unigram with bytes": models.Unigram(WITH_BYTES, 0, True),
}
TELL = ("WordPiece", "words", "BPE", "BPE, unknown ones as one", "Unigram")
CAN_NOT = ("words without", "Unigram without")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_most_of_whose_tokens_are_unknown(kind, tmp_path):
    made = Tokenizer(TOKENIZERS[kind])
    made.normalizer = normalizers.NFKC()
    split = {"bytes": ByteLevel(), "WordPiece": BertPreTokenizer(), "words": Whitespace()}
    made.pre_tokenizer = split.get(kind.partition(" ")[0], Metaspace())
    made.save(str(tmp_path / "tokenizer.json"))
    task = TextClassification(tmp_path / "tokenizer.json", ("A", "B"))
    assert encoded(task, "good", "good good")["unread"].tolist() == ["", ""]
    texts = ["很好吃，下次还来", "هذا المنتج سيئ", "good good 很", "", "很 很"]
    if kind in CAN_NOT:
        with pytest.raises(Exception, match="unk|UNK"):
            encoded(task, *texts)
        return
    expected = ["unknown", "unknown", "", "", "unknown"] if kind in TELL else [""] * 5
    assert encoded(task, *texts)["unread"].tolist() == expected


def test_special_tokens_are_not_counted(any_tokenizer):
    task = TextClassification(any_tokenizer, ("A", "B"), max_length=12)
    found = encoded(task, "很", "", "good", ALPHABET, "很" * 40)["unread"].tolist()
    assert found[1:4] == [""] * 3
    assert found[0] == found[4]


def test_languages_come_before_unknown_tokens(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"), languages=["en"])
    german = "Das ist leider ein sehr schlechtes Produkt, ich bin enttäuscht."
    texts = [german, "很好吃，下次还来", "the battery is not at all good", "👍"]
    assert encoded(task, *texts)["unread"].tolist() == ["de", "zh", "", "unknown"]
    of_nobody = TextClassification(tokenizer, ("A", "B"))
    assert encoded(of_nobody, "the battery", "很好吃")["unread"].tolist() == ["", "unknown"]
    rows = encoded(task, *texts)
    predictions = task.decode({"logits": np.zeros((4, 2), np.float32)}, rows)
    assert predictions["unread"].tolist() == rows["unread"].tolist()
    assert "unread" not in {field.name for field in task.outputs}


# ---------------------------------------------------------------- long texts

LETTERS = list("abcdefghijklmnopqrstuvwxyz")
ALPHABET = " ".join(LETTERS)  # a token each


@pytest.fixture(scope="module", params=["Bert", "Roberta", "none", "at the end"])
def any_tokenizer(request, checkpoints, tmp_path_factory):
    """Special tokens of BERT's kind, of RoBERTa's, none at all, and one at the end (as T5)."""
    if request.param in checkpoints:
        return checkpoints[request.param] / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(checkpoints["Bert"] / "tokenizer.json"))
    end = [("[SEP]", tokenizer.token_to_id("[SEP]"))] if request.param != "none" else []
    template = "$A [SEP]" if end else "$A"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=end)
    tokenizer.enable_truncation(5)  # as a file may say; the model's length counts
    tokenizer.enable_padding(length=9)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def words(path, rows):
    """Each row's tokens, special ones included, joined by spaces."""
    names = Tokenizer.from_file(str(path)).id_to_token
    return [" ".join(names(int(token)) for token in row) for row in rows["input_ids"]]


def test_head_is_what_the_tokenizer_itself_cuts(any_tokenizer, reviews):
    texts = [*reviews(200), "", " ", "[CLS] good [SEP] " * 9, "[SEP]", ALPHABET, "good"]
    library = Tokenizer.from_file(str(any_tokenizer))
    library.no_padding()
    library.enable_truncation(12)
    expected = library.encode_batch(texts)
    rows = encoded(TextClassification(any_tokenizer, ("A", "B"), max_length=12), *texts)
    assert [row.tolist() for row in rows["input_ids"]] == [row.ids for row in expected]
    assert all(row.dtype == np.int64 for row in rows["input_ids"])
    assert (rows["lost_tokens"] > 0).tolist() == [bool(row.overflowing) for row in expected]
    assert rows["windows"].tolist() == [1] * len(texts)


def test_tokens_and_lost_tokens_leave_special_ones_out(any_tokenizer):
    task = TextClassification(any_tokenizer, ("A", "B"), max_length=12)
    special = len(encoded(task, "")["input_ids"][0])
    rows = encoded(task, "", "good battery", ALPHABET)
    predictions = task.decode({"logits": np.zeros((3, 2), np.float32)}, rows)
    assert predictions["tokens"].tolist() == [0, 2, 26]
    assert predictions["lost_tokens"].tolist() == [0, 0, 26 - 12 + special]
    assert predictions["truncated"].tolist() == [False, False, True]
    assert {predictions[name].dtype for name in ("tokens", "lost_tokens")} == {np.dtype(np.int64)}


def test_head_and_tail(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"), max_length=12, long_text="head-tail")
    rows = encoded(task, ALPHABET, "good")
    assert words(tokenizer, rows) == ["[CLS] a b c t u v w x y z [SEP]", "[CLS] good [SEP]"]
    assert rows["lost_tokens"].tolist() == [16, 0]


def test_head_and_tail_as_in_its_source(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"), max_length=512, long_text="head-tail")
    (row,) = encoded(task, "good " * 128 + "bad " * 100 + "fine " * 382)["input_ids"]
    assert len(row) == 512
    assert len(set(row[1:129])) == len(set(row[129:511])) == 1


@pytest.mark.parametrize("long_text", ["head", "head-tail", "chunks"])
def test_a_text_that_fits_exactly_is_left_alone(any_tokenizer, long_text):
    plain = TextClassification(any_tokenizer, ("A", "B"))
    exact = len(encoded(plain, ALPHABET)["input_ids"][0])
    task = TextClassification(any_tokenizer, ("A", "B"), max_length=exact, long_text=long_text)
    rows = encoded(task, ALPHABET)
    assert rows["input_ids"][0].tolist() == encoded(plain, ALPHABET)["input_ids"][0].tolist()
    assert (rows["windows"].tolist(), rows["lost_tokens"].tolist()) == ([1], [0])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [3, 4, 7, 12, 20, 27])
def test_chunks_hold_every_token_once_in_even_windows(any_tokenizer, max_length, side):
    task = TextClassification(
        any_tokenizer, ("A", "B"), max_length=max_length, long_text="chunks", pad_side=side
    )
    special = set(encoded(task, "")["input_ids"][0])
    rows = encoded(task, "good", ALPHABET, "" if special else "good")
    tensors = task.collate(rows)
    assert len(tensors["input_ids"]) == rows["windows"].sum()
    assert tensors["input_ids"].shape[1] <= max_length
    windows = tensors["attention_mask"].sum(axis=1)[1:-1]
    assert windows.max() - windows.min() <= 1
    kept = tensors["input_ids"][1:-1][tensors["attention_mask"][1:-1] == 1]
    names = Tokenizer.from_file(str(any_tokenizer)).id_to_token
    assert [names(int(token)) for token in kept if token not in special] == LETTERS
    assert task.cost(rows)[1] == windows.max() * len(windows)
    assert rows["lost_tokens"].tolist() == [0, 0, 0]
    if special:  # each window has its own
        assert (kept == min(special)).sum() == len(windows)


def test_chunks_give_the_mean_of_the_probabilities(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"), max_length=12, long_text="chunks")
    rows = encoded(task, "good", ALPHABET, "bad")
    assert rows["windows"].tolist() == [1, 3, 1]
    logits = np.array([[9, -9], [0, 2], [4, 0], [0, 1], [-9, 9]], np.float32)
    got = task.decode({"logits": logits}, rows)
    mean = np.mean([1 / (1 + np.exp(-x)) for x in (2, -4, 1)])
    np.testing.assert_allclose(got["scores"][1], [1 - mean, mean], rtol=1e-6)
    assert got["label"].tolist() == ["A", "B", "B"]
    assert got["truncated"].tolist() == [False, False, False]
    assert got["margin"][1] == pytest.approx(abs(mean - 0.5), abs=1e-6)
    assert len({len(column) for column in got.values()}) == 1


def test_chunks_with_a_threshold_and_with_many_labels(tokenizer):
    logits = np.array([[0, 2], [4, 0], [0, 1]], np.float32)
    options = {"max_length": 12, "long_text": "chunks"}
    task = TextClassification(tokenizer, ("A", "B"), threshold=0.4, **options)
    assert task.decode({"logits": logits}, encoded(task, ALPHABET))["label"].tolist() == ["B"]
    task = TextClassification(tokenizer, ("A", "B"), multi_label=True, threshold=0.6, **options)
    got = task.decode({"logits": logits}, encoded(task, ALPHABET))
    assert got["label"].tolist() == ["A|B"]
    np.testing.assert_allclose(got["scores"][0], (1 / (1 + np.exp(-logits))).mean(0), rtol=1e-6)


def test_a_window_without_an_answer_leaves_the_text_without_one(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"), max_length=12, long_text="chunks")
    logits = np.array([[0, 2], [np.nan, 0], [0, 1]], np.float32)
    got = task.decode({"logits": logits}, encoded(task, ALPHABET))
    assert np.isnan(got["score"]).all()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_text_of_many_windows_runs_in_slices(bert, reviews, runtime):
    model = load_model(
        str(bert), runtime=runtime, precision="float32", threads=1, long_text="chunks"
    )
    sizes = []
    run = model.runtime.run

    class Watched:
        def __getattr__(self, name):
            return getattr(model.runtime, name)

        def run(self, tensors):
            sizes.append(tensors["input_ids"].size)
            return run(tensors)

    texts = [" ".join(reviews(900)), "good", "", " ".join(reviews(60, seed=3))]
    columns = {"text": objects(texts)}
    got = dataclasses.replace(model, runtime=Watched()).predict_columns(columns)
    assert max(sizes) <= model.task.batch_cost
    rows = model.task.encode(columns)
    assert rows["windows"][0] > 50
    whole = model.task.decode(run(model.task.collate(rows)), rows)
    np.testing.assert_allclose(got["scores"], whole["scores"], atol=1e-5)
    assert got["label"].tolist() == whole["label"].tolist()
    assert got["tokens"].tolist() == whole["tokens"].tolist()
    alone = model.predict({"text": objects(texts[:1])})
    np.testing.assert_allclose(alone["scores"], whole["scores"][:1], atol=1e-5)


@pytest.mark.parametrize("long_text", ["head", "head-tail", "chunks"])
def test_texts_are_encoded_the_same_whole_or_in_pieces(
    any_tokenizer, reviews, monkeypatch, long_text
):
    texts = ["", *reviews(50), "", " ".join(reviews(50)), " " * 200, "[SEP]" * 40 + " good"]
    texts += [" ".join(["good"] * words) for words in range(25, 35)]
    task = TextClassification(any_tokenizer, ("A", "B"), max_length=30, long_text=long_text)
    counted = {"text": objects(texts), "count_all": np.ones(len(texts), bool)}
    whole = task.encode(counted)
    monkeypatch.setattr(texts_module, "_CHARACTERS", 100)
    pieces = task.encode(counted)
    for name, values in whole.items():
        assert list(map(np.array_equal, values, pieces[name])) == [True] * len(texts), name
    assert pieces["input_ids"][-1].dtype == np.int64
    assert encoded(task)["tokens"].shape == (0,)


def test_of_a_long_text_no_more_is_read_than_the_model_sees(any_tokenizer, reviews):
    """The model sees the same, and knows as well that it isn't all."""
    words = " ".join(reviews(400))
    blank = " " * 9000 + "\n" * 9000
    texts = [words, blank, blank + "good", "good " * 9 + blank, "x" * 9000, "." * 9000, words[:600]]
    task = TextClassification(any_tokenizer, ("A", "B"), max_length=12)
    whole = task.encode({"text": objects(texts), "count_all": np.ones(len(texts), bool)})
    seen = encoded(task, *texts)
    assert [row.tolist() for row in seen["input_ids"]] == [r.tolist() for r in whole["input_ids"]]
    for name in ("windows", "unread"):
        assert seen[name].tolist() == whole[name].tolist()
    assert ((seen["lost_tokens"] > 0) == (whole["lost_tokens"] > 0)).all()
    assert (seen["tokens"] <= whole["tokens"]).all()
    assert seen["tokens"][0] < 400 < whole["tokens"][0]


def test_options_reach_the_task(tokenizer):
    files = ModelFiles("m", "", "", "", {}, labels=("A", "B"), tokenizer=tokenizer, max_length=8)
    rows = [
        encoded(TextClassification.build(files, RUNTIME, options), ALPHABET)
        for options in (TaskOptions(), TaskOptions(long_text="chunks"))
    ]
    assert [row["lost_tokens"].tolist() for row in rows] == [[20], [0]]


def test_what_cannot_be(tokenizer):
    with pytest.raises(ConfigError, match="long_text 'tail': expected head, head-tail, chunks"):
        TextClassification(tokenizer, ("A", "B"), long_text="tail")
    with pytest.raises(ModelError, match="adds 2 special tokens .* takes only 2"):
        TextClassification(tokenizer, ("A", "B"), max_length=2)
