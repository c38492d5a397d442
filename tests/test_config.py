import pytest

from mlopsdeploy.config import BatchSettings, load
from mlopsdeploy.errors import ConfigError


def loaded(file=None, environment=None, **flags):
    return load(BatchSettings, str(file) if file else None, flags, environment or {})


def test_defaults():
    settings = loaded()
    assert settings.model == "sentiment"
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


@pytest.mark.parametrize("said", ["features: [a, b]", "features: a, b"])
def test_features_as_list_and_as_text(tmp_path, said):
    file = tmp_path / "batch.yaml"
    file.write_text(said, "utf-8")
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
        ("threshold: 1.5", ["threshold", "1.5"]),
        ("delimiter: ';;'", ["delimiter"]),
        ("limit: [1]", ["limit", "[1]"]),
        ("- a\n- b", ["expected 'key: value' lines"]),
        ("a: [", ["not YAML"]),
        ("just words", ["expected 'key: value' lines"]),
    ],
)
def test_what_is_wrong_in_a_yaml_file(tmp_path, text, words):
    file = tmp_path / "batch.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        loaded(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_yaml_file_that_is_not_text(tmp_path):
    file = tmp_path / "batch.yaml"
    file.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="not YAML"):
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
    with pytest.raises(ValueError, match="frozen"):
        loaded().limit = 3
