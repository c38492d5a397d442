"""Several models as one: who reads which text, and that each row is as its own model has it."""

import shutil
import threading

import numpy as np
import onnx
import pytest

from mlopsdeploy import load_model
from mlopsdeploy.columns import concat, objects, take
from mlopsdeploy.core import loading
from mlopsdeploy.core.by_language import by_language
from mlopsdeploy.core.model import LanguageWarning, unread_in
from mlopsdeploy.core.once import once
from mlopsdeploy.errors import InputError, ModelError
from mlopsdeploy.model_files import find_model

ENGLISH = ["Works like a charm, I love it.", "It broke after two days, terrible.", "ok", "🙂"]
CHINESE = ["很好吃，下次还来", "太差了，再也不买了"]
GERMAN = "Nach zwei Wochen kaputt, und der Kundendienst antwortet nicht."


@pytest.fixture(scope="module")
def both():
    """The default: the built-in models."""
    return load_model(threads=1)


@pytest.fixture(scope="module")
def reading(bert, tmp_path_factory):
    """`reading("de", "fr")`: a model that says it reads these."""

    def make(*languages, like=bert, more=""):
        folder = tmp_path_factory.mktemp("model") / ("-".join(languages) or "silent")
        shutil.copytree(like, folder)
        said = f"languages: [{', '.join(languages)}]\n" if languages else ""
        (folder / "model.yaml").write_text(f"{said}{more}", "utf-8")
        return folder

    return make


def encoded(model, texts):
    return model.task.encode({"text": objects(texts)})


def test_each_text_goes_to_the_one_that_reads_it(both):
    texts = [ENGLISH[0], CHINESE[0], *ENGLISH[1:], GERMAN, CHINESE[1], "これは良いです。"]
    found = both.predict_columns({"text": objects(texts)})
    zh = [1, 6]
    assert [row for row, name in enumerate(found["model"]) if name == "sentiment-zh"] == zh
    assert set(found["model"]) == {"sentiment", "sentiment-zh"}
    assert unread_in(found) == {"de": 1, "ja": 1, "unknown": 1}  # the last is the emoji
    for name in ("sentiment", "sentiment-zh"):
        rows = np.flatnonzero(found["model"] == name)
        alone = load_model(name, threads=1).predict_columns({"text": objects(texts)[rows]})
        assert found["label"][rows].tolist() == alone["label"].tolist()
        np.testing.assert_allclose(found["scores"][rows], alone["scores"], atol=0.05)
        for same in ("tokens", "lost_tokens", "truncated"):
            assert found[same][rows].tolist() == alone[same].tolist()
    assert found["label"][[0, 1, 2, 6]].tolist() == [
        "POSITIVE", "POSITIVE", "NEGATIVE", "NEGATIVE",
    ]  # fmt: skip


def test_texts_of_one_language_are_planned_and_padded_as_by_their_model_alone(both):
    texts = [f"{text} {'very ' * row}" for row in range(30) for text in ENGLISH]
    alone = load_model("sentiment", threads=1)
    one, other = encoded(both, texts), encoded(alone, texts)
    assert one["unread"].tolist() == other["unread"].tolist()
    plans = both.plan(one), alone.plan(other)
    assert [rows.tolist() for rows in plans[0]] == [rows.tolist() for rows in plans[1]]
    for rows in plans[0]:
        tensors = both.task.collate(take(one, rows))
        for name, array in alone.task.collate(take(other, rows)).items():
            np.testing.assert_array_equal(tensors[name], array)


@pytest.mark.parametrize("long_text", ["head", "chunks"])
def test_long_texts_among_short_ones(reading, long_text):
    """A text of many windows keeps them together, whichever its neighbours' model is."""
    how = {"runtime": "onnxruntime", "precision": "float32", "threads": 1, "long_text": long_text}
    one, other = reading("en"), reading("zh")
    model = load_model(f"{one},{other}", **how)
    texts = [
        "the food was great " * 150,
        "好 " * 400,
        *ENGLISH,
        *CHINESE,
        "good 好好好好好好 " * 90,
    ]
    found = model.predict_columns({"text": objects(texts)})
    expected = load_model(str(one), **how).predict_columns({"text": objects(texts)})
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    assert found["tokens"].tolist() == expected["tokens"].tolist()
    assert found["truncated"].any() == (long_text == "head")
    assert found["model"].tolist() == [
        "en", "zh", *["en"] * len(ENGLISH), *["zh"] * len(CHINESE), "zh",
    ]  # fmt: skip


def test_models_that_call_their_output_otherwise(reading):
    other = reading("zh")
    graph = onnx.load(other / "onnx" / "model.onnx")
    for node in graph.graph.node:
        node.output[:] = ["y" if name == "logits" else name for name in node.output]
    graph.graph.output[0].name = "y"
    onnx.save(graph, other / "onnx" / "model.onnx")
    model = load_model(f"{reading('en')},{other}", runtime="onnxruntime", precision="float32")
    assert model.predict_columns({"text": objects([*ENGLISH, *CHINESE])})["label"].all()


def test_none_but_the_first_is_loaded_before_it_is_needed(reading):
    files = find_model(f"{reading('en')},{reading('zh')}")
    loaded = []

    def loading_of(name):
        def load():
            loaded.append(name)
            return load_model(name, runtime="onnxruntime", precision="float32", threads=1)

        return once(load)

    names = [str(part.tokenizer.parent) for part in files.parts]
    model = by_language(files, [loading_of(name) for name in names])
    model.predict_columns({"text": objects([*ENGLISH, GERMAN])})
    assert loaded == names[:1]
    threads = [
        threading.Thread(target=model.predict_columns, args=({"text": objects(CHINESE)},))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == names


def test_the_first_that_reads_a_language_gets_it(reading):
    model = load_model(f"{reading('fr', 'de')},{reading('de', 'en')}", runtime="onnxruntime")
    found = model.predict_columns({"text": objects([GERMAN, ENGLISH[0], CHINESE[0], "ok"])})
    assert found["model"].tolist() == ["fr-de", "de-en", "fr-de", "fr-de"]
    assert found["unread"][2] == "zh"
    assert not {"de", "en"} & set(found["unread"])
    assert model.task.languages == ("fr", "de", "de", "en")


def test_close_calls_are_rechecked_by_the_precision_of_their_own_model(reading, monkeypatch):
    """One in float32 beside the built-in one in int8, in either order."""
    zh = str(reading("zh"))
    for reference in (f"sentiment,{zh}", f"{zh},sentiment"):
        model = load_model(reference, threads=1)
        texts = [*ENGLISH, *CHINESE, "not bad, not good", "It is what it is, I think"]
        part = encoded(model, texts)
        margins = model.task.decode(model.runtime.run(model.task.collate(part)), part)["margin"]
        alone = load_model("sentiment", threads=1)
        english = np.flatnonzero(part["model"] == "sentiment")
        own = take(part, english)
        limit = loading.RECHECK_MARGIN[alone.runtime.precision]
        expected = alone.task.decode(alone.runtime.run(alone.task.collate(own)), own)["margin"]
        assert ((margins[english] < 0) == (expected < limit)).all()
        assert (np.delete(margins, english) == np.inf).all()
        assert model.predict_columns({"text": objects(texts)})["label"].all()


def test_none_is_calibrated_by_rows_of_which_others_read_the_most(reading, tmp_path, monkeypatch):
    """It would be in the middle of a run, when the second one is first needed."""
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path))
    said = []
    model = load_model(
        f"{reading('en')},{reading('zh')}", runtime="openvino", precision="int8",
        calibrate=lambda: pytest.fail("calibrated"), log=said.append,
    )  # fmt: skip
    assert model.predict_columns({"text": objects([*ENGLISH, *CHINESE])})["label"].all()
    assert [line.split(":")[0] for line in said] == [
        "int8 is not proven for en", "int8 is not proven for zh",
    ]  # fmt: skip


def test_no_text_at_all(both):
    assert len(both.predict([])["label"]) == 0
    assert both.predict([None, " "])["label"].tolist() == ["", ""]
    assert concat([both.predict_columns({"text": objects([])})])["label"].shape == (0,)


# ---------------------------------------------------------------- loading, and saying no


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("sentiment,fraud", "fraud: no classifier of texts, so none can stand beside it"),
        ("sentiment,{silent}", "doesn't say which languages it reads; put 'languages: [en]'"),
        ("sentiment,{three}", "models that stand side by side need the same"),
        ("sentiment,nowhere", "no model called 'nowhere'"),
    ],
)
def test_models_that_can_not_stand_side_by_side(reading, three_class_bert, reference, message):
    made = {"silent": reading(), "three": reading("de", like=three_class_bert)}
    with pytest.raises(ModelError) as caught:
        load_model(reference.format(**made))
    assert message in str(caught.value)


def test_a_folder_with_a_comma_is_one_model(reading, tmp_path):
    folder = tmp_path / "en,zh"
    shutil.copytree(reading("en"), folder)
    assert load_model(str(folder), runtime="onnxruntime").task.languages == ("en",)


def test_several_are_known_by_all_of_their_digests(reading):
    one, other = reading("en"), reading("zh")
    digests = {load_model(f"{one},{other}", runtime="onnxruntime").digest}
    digests.add(load_model(f"{other},{one}", runtime="onnxruntime").digest)
    (other / "model.yaml").write_text("languages: [zh, ja]\n", "utf-8")
    model = load_model(f"{one},{other}", runtime="onnxruntime")
    assert len(digests | {model.digest}) == 3
    assert load_model(f"{one},{other}", runtime="onnxruntime", digest=model.digest)
    with pytest.raises(ModelError, match="is another model than the one that was pinned"):
        load_model(f"{one},{other}", runtime="onnxruntime", digest="0" * 64)


def test_the_default_says_no_to_texts_that_it_does_not_read(both):
    with pytest.raises(
        InputError, match=r"2 of 3 texts \(67%\).* 2 de; it reads en, zh; .*load_model"
    ):
        both.predict([GERMAN, "good", GERMAN])
    with pytest.warns(LanguageWarning, match=r"doesn't read 1 of 2 texts \(1 de\)"):
        both.predict([GERMAN, "good"])


def test_one_that_was_named_goes_on_and_says_so():
    model = load_model("sentiment,sentiment-zh", threads=1)
    with pytest.warns(LanguageWarning, match=r"doesn't read 1 of 1 texts \(1 de\)"):
        assert model.predict([GERMAN])["label"][0]
