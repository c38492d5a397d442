"""One reader of YAML: what is text stays text, what is wrong is one line with its place."""

import json
import math
from pathlib import Path

import pydantic
import pytest
import yaml

from mlopsdeploy.core.yaml_files import MAX_BYTES, read_yaml, text_of
from mlopsdeploy.errors import ConfigError, ModelError


def read(folder: Path, content: str | bytes) -> dict[str, object]:
    file = folder / "a.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(file, ConfigError)


@pytest.mark.parametrize(
    "word", ["no", "yes", "on", "off", "y", "n", "NO", "12:30", "2024-01-01", "1_000"]
)
def test_words_that_yaml_1_1_takes_for_something_else_stay_text(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, f"a: [{word}]\n{word}: b\n") == {"a": [word], word: "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("FALSE", False), ("~", None), ("", None), ("null", None), ("7", 7),
     ("0o17", 15), ("0x1F", 31), ("-1.5", -1.5), ("1e3", 1000.0), ("-.inf", -math.inf),
     ("'7'", "7"), ("!!str 7", "7"), ("<<", "<<")],
)  # fmt: skip
def test_scalars_of_the_core_schema(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"a: {text}\n")["a"]
    assert found == value
    assert isinstance(found, type(value))


@pytest.mark.parametrize("text", ["1.10", "007", "1e3", "0x1F", "3", "2.5", "1.0", "+1"])
def test_a_number_keeps_its_text(tmp_path: Path, text: str) -> None:
    value = read(tmp_path, f"a: {text}\n")["a"]
    assert text_of(value) == text
    assert text_of(read(tmp_path, yaml.safe_dump({"a": value}))["a"]) == text
    assert json.loads(json.dumps(value)) == value


def test_text_of_leaves_the_rest_alone() -> None:
    assert [text_of(value) for value in (True, None, "a", [1])] == [True, None, "a", [1]]


def test_yes_is_true_where_a_setting_is_a_switch(tmp_path: Path) -> None:
    class Example(pydantic.BaseModel):
        follow: bool
        many: int
        share: float | None

    example = Example.model_validate(read(tmp_path, "follow: yes\nmany: 010\nshare: 1.10\n"))
    assert example == Example(follow=True, many=10, share=1.1)


def test_merge_keys_and_aliases(tmp_path: Path) -> None:
    value = read(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 9}, *a]}\n")
    assert value == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 9, "y": 2}}


@pytest.mark.parametrize("content", ["", "# a comment\n", "---\n", "~\n"])
def test_nothing_is_an_empty_mapping(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == {}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n") == {"a": 1}


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n"
    for old, new in zip("abcdef", "bcdefg", strict=True)
)

LONG_BOMB = f"a: &a {'x' * 99_000}\nb: [{'*a, ' * 200}]\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands there twice"),
        ("a: {x: 1,\n  x: 2}\n", "line 2: the key 'x' stands there twice"),
        (BOMB, "line 6: expands to more than 100,000 values"),
        (LONG_BOMB, "line 2: expands to more than 100,000 values"),
        ("a:\n" + "- b\n" * 100_001, "line 99999: holds more than 100,000 values"),
        ("a: &a\n  - *a\n", "line 2: *a stands within what it names"),
        ("a: *b\n", "line 1: not YAML (found undefined alias 'b')"),
        ("a: " + "[" * 200, "line 1: nested deeper than 50"),
        (b"a: 1\nb: \xff\n", "line 2: not UTF-8; save the file as UTF-8"),
        ("a: 1\nb: \x01\n", "line 2: holds the control character 0x01"),
        ("a:\n\tb: 1\n", "line 2: not YAML (begins with a tab; indent with spaces)"),
        ("a: [1,\n", "line 2: not YAML (expected the node content, but found '<stream end>')"),
        ("a: 1\n---\nb: 1\n", "line 2: not YAML (but found another document)"),
        ("- a\n", "line 1: expected 'key: value' lines"),
        ("hello\n", "line 1: expected 'key: value' lines"),
        ("? [a]\n: b\n", "line 1: a key can't be a list or a map"),
        ("a:\n  <<: 3\n", "line 2: << takes a map, or a list of maps"),
        ("a: !!python/name:os x\n", "line 1: has the tag !!python/name:os; write plain YAML"),
        ("a: !!int x\n", "line 1: 'x' can't be read as int"),
        ("a: " + "9" * 5000, "line 1: '" + "9" * 40 + "' can't be read as int"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, content)
    assert str(caught.value) == f"{tmp_path / 'a.yaml'}, {problem}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="b.yaml: no such file"):
        read_yaml(tmp_path / "b.yaml", ModelError)
    with pytest.raises(ModelError, match="can't be read"):
        read_yaml(tmp_path, ModelError)
    with pytest.raises(ConfigError, match="a.yaml: larger than 4 MiB"):
        read(tmp_path, b"#" * (MAX_BYTES + 1))
