import json
import pickle

import pytest

from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import BatchSettings, EdgeSettings, ServeSettings, load


def loaded(file=None, environment=None, **flags):
    return load(BatchSettings, str(file) if file else None, flags, environment or {})


def test_defaults():
    settings = loaded()
    assert settings.model == "sentiment,sentiment-zh"
    assert settings.batch_size == 1000
    assert settings.precision == "auto"
    assert settings.input is None
    assert settings.all_scores is False


def test_flag_over_environment_over_yaml_over_default(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_text("batch_size: 2\nlimit: 20\nmodel: from-yaml\n", "utf-8")
    environment = {"MLOPSDEPLOY_BATCH_SIZE": "3", "MLOPSDEPLOY_LIMIT": "30"}
    settings = loaded(file, environment, batch_size=4)
    assert (settings.batch_size, settings.limit, settings.model) == (4, 30, "from-yaml")
    assert settings.prefix == ""


def test_a_flag_that_is_not_given_does_not_hide_the_yaml(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_text("all_scores: true\nprefix: p_\n", "utf-8")
    settings = loaded(file, all_scores=None, prefix=None)
    assert settings.all_scores is True
    assert settings.prefix == "p_"


@pytest.mark.parametrize("text", ["features: [a, b]", "features: a, b"])
def test_features_as_list_and_as_text(tmp_path, text):
    file = tmp_path / "batch.yaml"
    file.write_text(text, "utf-8")
    assert loaded(file).features == ("a", "b")
    assert loaded(environment={"MLOPSDEPLOY_FEATURES": "c,d"}).features == ("c", "d")


def test_environment_variables_are_read_as_their_type():
    environment = {"MLOPSDEPLOY_ALL_SCORES": "true", "MLOPSDEPLOY_THRESHOLD": "0.25"}
    settings = loaded(environment=environment)
    assert settings.all_scores is True
    assert settings.threshold == 0.25


def test_an_empty_file_says_nothing(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_text("# nothing yet\n", "utf-8")
    assert loaded(file) == loaded()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batchsize: 5", ["unknown key 'batchsize'", "did you mean 'batch_size'?"]),
        ("qqqq: 5", ["unknown key 'qqqq'", "there are: ", "text_column"]),
        ("5: 5", ["unknown key 5"]),
        ("batch_size: many", ["batch_size", "'many'", "integer"]),
        ("batch_size: 0", ["batch_size", "greater than or equal to 1"]),
        ("precision: fp16", ["precision", "'fp16'", "bfloat16"]),
        ("threshold: high", ["threshold", "number"]),
        ("delimiter: ';;'", ["delimiter"]),
        ("limit: [1]", ["limit", "[1]"]),
        ("- a\n- b", ["expected 'key: value' lines"]),
        ("a: [", ["not YAML"]),
        ("limit: 1\nlimit: 2", [", line 2: the key 'limit' stands there twice"]),
        ("just words", ["expected 'key: value' lines"]),
    ],
)
def test_what_is_wrong_in_a_yaml_file(tmp_path, text, words):
    file = tmp_path / "batch.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        loaded(file)
    message = str(raised.value)
    assert message.startswith((f"{file}: ", f"{file}, line "))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_yaml_file_that_is_not_text(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="not UTF-8"):
        loaded(file)


def test_a_yaml_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        loaded(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        loaded(tmp_path)


def test_a_wrong_value_is_blamed_on_the_place_that_won(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_text("limit: 3\n", "utf-8")
    with pytest.raises(ConfigError, match=r"^MLOPSDEPLOY_LIMIT: limit: 'few': "):
        loaded(file, {"MLOPSDEPLOY_LIMIT": "few"})
    with pytest.raises(ConfigError, match=r"^--limit: -1: "):
        loaded(file, {"MLOPSDEPLOY_LIMIT": "few"}, limit=-1)


def test_settings_cannot_be_changed_afterwards():
    settings = loaded()
    with pytest.raises(AttributeError, match="frozen"):
        settings.limit = 3
    assert settings.limit is None
    changed = settings.replace(limit=3)
    assert (changed.limit, settings.limit) == (3, None)
    assert (changed.given, settings.given) == ({"limit"}, set())


def test_settings_are_compared_by_their_values_and_travel_to_other_processes():
    first = BatchSettings(limit=3)
    assert first == BatchSettings(limit="3")
    assert first != BatchSettings(limit=4)
    assert first != EdgeSettings(limit=3)
    assert len({first, BatchSettings(limit=3)}) == 1
    assert pickle.loads(pickle.dumps(first)) == first


def test_as_a_dict_they_are_loaded_again():
    settings = serving(models=["a", "b=c"], max_body="1MiB")
    assert ServeSettings(**json.loads(json.dumps(settings.as_dict()))) == settings
    assert settings.as_dict(only_given=True) == {
        "models": [{"model": "a"}, {"name": "b", "model": "c"}],
        "max_body": 1 << 20,
    }


@pytest.mark.parametrize("word", ["yes", "on", "true", "Yes"])
def test_yes_is_yes_where_yes_or_no_is_asked(tmp_path, word):
    file = tmp_path / "edge.yaml"
    file.write_text(f"follow: {word}\nlines: chat.log\n", "utf-8")
    assert load(EdgeSettings, str(file), {}, {}).follow is True


def test_no_columns_are_not_all_of_them(tmp_path):
    """An empty list is given, wherever it comes from; what is left out is None."""
    file = tmp_path / "b.yaml"
    file.write_text("columns: []\n", "utf-8")
    assert load(BatchSettings, None, {}, {}).columns is None
    for place in ((str(file), {}, {}), (None, {"columns": ""}, {}), (None, {"columns": ()}, {})):
        assert load(BatchSettings, *place).columns == ()
    assert load(BatchSettings, None, {}, {"MLOPSDEPLOY_COLUMNS": ""}).columns == ()


SPELLINGS = [
    (BatchSettings, "max_flips", "2%", 0.02),
    (BatchSettings, "max_flips", "0.02", 0.02),
    (BatchSettings, "commit_seconds", "2min", 120),
    (BatchSettings, "commit_seconds", "500ms", 0.5),
    (BatchSettings, "threads", "auto", None),
    (BatchSettings, "features", "a, b", ("a", "b")),
    (BatchSettings, "columns", "a, b", ("a", "b")),
    (BatchSettings, "columns", "", ()),
    (ServeSettings, "threads", "auto", None),
    (ServeSettings, "max_body", "2MB", 2_000_000),
    (ServeSettings, "max_body", "1 MiB", 1 << 20),
    (ServeSettings, "max_body", "512", 512),
    (ServeSettings, "drain_timeout", "1h", 3600),
    (EdgeSettings, "threads", "auto", None),
    (EdgeSettings, "threads", "3", 3),
    (EdgeSettings, "stall_seconds", "2", 2),
    (ChooseSettings, "requests_per_day", "10k", 10_000),
    (ChooseSettings, "seconds", "2s", 2),
    (ChooseSettings, "features", "a,b", ("a", "b")),
]


@pytest.mark.parametrize(("settings", "name", "text", "value"), SPELLINGS)
def test_amounts_are_spelled_alike_in_flags_variables_and_yaml(
    tmp_path, settings, name, text, value
):
    file = tmp_path / "settings.yaml"
    file.write_text(f"{name}: '{text}'\n", "utf-8")
    for found in (
        load(settings, str(file), {}, {}),
        load(settings, None, {name: text}, {}),
        load(settings, None, {}, {f"MLOPSDEPLOY_{name.upper()}": text}),
    ):
        assert getattr(found, name) == value


@pytest.mark.parametrize("name", ["commit_seconds", "max_flips", "threads"])
def test_amounts_that_are_none_are_one_line(name):
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')}: 'lots': "):
        loaded(**{name: "lots"})


def test_the_variable_of_the_model_is_every_strategys():
    environment = {"MLOPSDEPLOY_MODEL": "churn.onnx"}
    assert loaded(environment=environment).model == "churn.onnx"
    assert load(EdgeSettings, None, {}, environment).model == "churn.onnx"
    assert load(ChooseSettings, None, {}, environment).model == "churn.onnx"
    assert [one.model for one in serving(environment=environment).models] == ["churn.onnx"]
    environment["MLOPSDEPLOY_MODELS"] = "a,b"
    assert [one.model for one in serving(environment=environment).models] == ["a", "b"]
    assert [one.model for one in serving(environment=environment, models=["c"]).models] == ["c"]


def test_numbers_in_yaml_are_text_where_text_is_wanted(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_text("max_errors: 100\nprefix: 1.10\nfeatures: [1, 2.50, no]\n", "utf-8")
    settings = loaded(file)
    assert (settings.max_errors, settings.prefix) == ("100", "1.10")
    assert settings.features == ("1", "2.50", "no")


def test_the_model_for_lines_is_one_of_text():
    assert EdgeSettings().model == "detector"
    assert EdgeSettings(lines="chat.log").model == "sentiment,sentiment-zh"
    assert "model" not in EdgeSettings(lines="chat.log").given
    assert EdgeSettings(lines="chat.log", model="mine").model == "mine"


# ---------------------------------------------------------------- serve


def serving(file=None, environment=None, **flags):
    return load(ServeSettings, str(file) if file else None, flags, environment or {})


def test_serve_defaults_are_safe():
    settings = serving()
    assert settings.host == "127.0.0.1"
    assert settings.port == 8080
    assert [one.called for one in settings.models] == ["fraud"]
    assert settings.max_body is None, "as the model's rows need; see serve.app"
    assert settings.trust_model is False
    assert settings.server == "asyncio"
    assert settings.workers is None


@pytest.mark.parametrize(
    ("reference", "called"),
    [
        ("fraud", "fraud"),
        ("scam=fraud", "scam"),
        ("scam=models/x=y.onnx", "scam"),
        ("models/churn.onnx", "churn"),
        ("models/churn.v2.tflite", "churn.v2"),
        ("./models/churn/", "churn"),
        ("org/some_name", "some_name"),
        ("org/name@abc123", "name"),
        ("fraud@1.0.0", "fraud"),
        ("fraud_detection_model.h5", "fraud_detection_model"),
        ("my model (2).keras", "my-model-2"),
        ("...", "model"),
        ("./models/en/, sentiment-zh", "en-sentiment-zh"),
    ],
)
def test_what_a_served_model_is_called(reference, called):
    assert ServeSettings(models=[reference]).models[0].called == called


def test_served_models_as_flags_environment_and_yaml(tmp_path):
    assert [one.model for one in serving(models=["a", "b=c"]).models] == ["a", "c"]
    settings = serving(environment={"MLOPSDEPLOY_MODELS": "a, b=c"})
    assert [(one.called, one.model) for one in settings.models] == [("a", "a"), ("b", "c")]
    file = tmp_path / "serve.yaml"
    file.write_text(
        "models:\n- fraud\n- x=churn.onnx\n"
        "- {model: churn.onnx, route: /v1/churn:score, input: rows, answer: {risk: score}}\n",
        "utf-8",
    )
    first, second, third = serving(file).models
    assert (first.called, second.called, third.called) == ("fraud", "x", "churn")
    assert (third.route, third.input, third.answer) == (
        "/v1/churn:score",
        "rows",
        {"risk": "score"},
    )
    assert [one.called for one in serving(file, models=["flag"]).models] == ["flag"]


def test_how_a_model_runs_is_set_for_all_or_for_one(tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text(
        "threshold: 0.3\nruntime: onnxruntime\nmodels:\n- a\n- {model: b, threshold: 0.9}\n"
        "- {model: c, runtime: auto, trust_model: true}\n",
        "utf-8",
    )
    settings = serving(file, threads=2)
    runs = [settings.running(one) for one in settings.models]
    assert [one.threshold for one in runs] == [0.3, 0.9, 0.3]
    assert [one.runtime for one in runs] == ["onnxruntime", "onnxruntime", "auto"]
    assert [one.trust_model for one in runs] == [False, False, True]
    assert {one.threads for one in runs} == {2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: 99999", ["port: 99999", "65535"]),
        ("workers: 0", ["workers: 0"]),
        ("max_body: lots", ["max_body: 'lots'"]),
        ("max_body: 0", ["max_body: 0", "greater than 0"]),
        ("header_timeout: 0", ["header_timeout: 0"]),
        ("server: apache", ["server: 'apache'", "gunicorn"]),
        ("route: /x", ["unknown key 'route'"]),
        ("models: []", ["models: []", "at least 1"]),
        ("models: 5", ["models: 5"]),
        ("models: [5]", ["models[0]: 5"]),
        ("models: [{name: x}]", ["models[0].model", "required"]),
        ("models: [{model: x, route: x}]", ["models[0].route: 'x'"]),
        ("models: [{model: x, route: '/a b'}]", ["models[0].route: '/a b'"]),
        ("models: [{model: x, route: '/<x>'}]", ["models[0].route: '/<x>'"]),
        ("models: [{model: x, route: /}]", ["models[0].route: '/'"]),
        ("models: [{model: x, route: /a/}]", ["models[0].route: '/a/'"]),
        ("models: [{model: x, name: 'a/b'}]", ["models[0].name: 'a/b'"]),
        ("models: [{model: x, input: ''}]", ["models[0].input: ''"]),
        ("models: [{model: x, answer: [label]}]", ["models[0].answer: ['label']"]),
        ("models: [{model: x, answer: {a: 1}}]", ["models[0].answer.a: 1"]),
        (
            "models: [a, {model: x, answr: {}}]",
            ["models[1]: unknown key 'answr'", "mean 'answer'?"],
        ),
        ("models: [{model: x, rout: /x}]", ["models[0]: unknown key 'rout'", "'route'?"]),
        ("models: [{model: x, qqqq: 1}]", ["models[0]: unknown key 'qqqq'; there are: ", "route"]),
        ("models: ['a b=c']", ["models[0].name: 'a b'"]),
    ],
)
def test_what_is_wrong_in_a_yaml_file_of_serve(tmp_path, text, words):
    file = tmp_path / "serve.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        serving(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    for word in words:
        assert word in message
