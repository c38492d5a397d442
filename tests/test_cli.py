"""The command line as a process: flags, exit codes, and one line for whatever is wrong."""

import gzip
import json
import os
import re
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from mlopsdeploy import __version__
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.cli import app
from mlopsdeploy.cli.commands import all_commands
from mlopsdeploy.settings import BatchSettings, EdgeSettings, ServeSettings

COMMANDS = dict(all_commands(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_are_made_from_the_settings(name):
    """Each has one, but for those of YAML alone, spelled like it, with no default of its own."""
    command = COMMANDS[name]
    flags = {one.name: one for one in command.params}
    for cls in command.settings:
        for setting in cls.declared().values():
            if setting.name not in flags:
                assert setting.flag is None or (name.startswith("bench ") and not setting.bench)
                continue
            flag = flags.pop(setting.name)
            assert flag.default is None
            if not setting.positional:
                assert setting.spelled in flag.opts
                assert flag.help.startswith(setting.help)
    assert set(flags) <= {"config"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_flag_under_a_heading_and_an_example(name):
    shown = CliRunner().invoke(app, [*name.split(), "-h"], terminal_width=80)
    assert shown.exit_code == 0
    assert shown.output == CliRunner().invoke(app, [*name.split(), "--help"]).output
    assert max(map(len, shown.output.splitlines())) <= 80
    for parameter in COMMANDS[name].params:
        for flag in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.search(rf"^ .*{flag}\b", shown.output, re.MULTILINE), flag
    (examples,) = re.findall(r"\nExamples:\n((?:  .+\n)+)", shown.output)
    for example in examples.splitlines():
        words = shlex.split(example)
        assert words[: 1 + len(name.split())] == ["mlopsdeploy", *name.split()]
        COMMANDS[name].make_context(name, words[1 + len(name.split()) :])


@pytest.mark.parametrize("command", [BatchSettings, ServeSettings, EdgeSettings, ChooseSettings])
def test_the_help_says_each_default_as_it_is(command):
    """A default that is not its own text, such as 1%, is read as the value that holds."""
    for setting in command.declared().values():
        if setting.shown_default and isinstance(setting.default, (int, float)):
            value = setting.kind.parse or type(setting.default)
            read = setting.shown_default == "yes" or float(value(setting.shown_default))
            assert read == setting.default, setting.name


def test_help_and_version(mlopsdeploy):
    shown = mlopsdeploy("--help")
    assert shown.code == 0
    assert "batch" in shown.out.decode()
    assert shown.err == ""
    shown = mlopsdeploy("--version")
    assert (shown.code, shown.out.decode().strip()) == (0, f"mlopsdeploy {__version__}")


def test_no_command_shows_the_help(mlopsdeploy):
    shown = mlopsdeploy()
    assert "Usage" in shown.out.decode() + shown.err


# ---------------------------------------------------------------- usage errors

GOOD = b"id,review_text\n1,the food is great\n2,awful\n"


def refused(result, leftovers):
    """Exit code 2, one line, nothing written; gives the line."""
    assert result.code == 2, result
    assert len(result.lines) == 1, result
    assert result.lines[0].startswith("mlopsdeploy: "), result
    assert result.out == b""
    assert leftovers() == []
    return result.lines[0].removeprefix("mlopsdeploy: ")


BAD_FILES = {
    "empty.csv": (b"", "empty.csv: the file is empty"),
    "header.csv": (b"id,review_text\n", "has a header but no rows"),
    "numbers.csv": (b"id,stars\n1,5\n2,4\n", "no column reads like text"),
    "two.csv": (
        b"title,summary\n"
        + b"".join(b"what a day %d,it was all so good %d\n" % (i, i) for i in range(9)),
        "which column is the text, 'title' or 'summary'?",
    ),
    "binary.csv": (bytes(range(256)) * 20, "looks like a binary file"),
    "image.csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "looks like a binary file"),
    "excel.csv": (b"PK\x03\x04" + bytes(50), "excel.csv: can't be read"),
    "cut.csv.gz": (gzip.compress(GOOD * 2000, mtime=0)[:-30], "cut.csv.gz: can't be read"),
    "r.parquet": (b"PAR1 but not really PAR1", "not a Parquet file"),
    "labelled.csv": (
        b"label,review_text\n1,good\n",
        "already has 'label', as the new columns are called; say --prefix predicted_",
    ),
    "r.xlsx": (b"PK\x03\x04", "r.xlsx: can't be read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_not_right(mlopsdeploy, leftovers, tmp_path, bert, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    line = refused(mlopsdeploy("batch", name, "--model", bert), leftovers)
    assert message in line


SET_ASIDE = {
    "quote.csv": (b'id,review_text\n1,"never closed\n2,b\n', "line 2: a quote"),
    "ragged.csv": (b"id,review_text\n1,a\n2,b,c\n", "line 3: has 3 fields, the header has 2"),
    "latin.csv": (b"id,review_text\n1,ok\n2,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
    "r.jsonl": (b'{"review_text": "a"}\nnot json\n', "line 2: not JSON"),
}


@pytest.mark.parametrize("name", SET_ASIDE)
def test_a_row_that_is_set_aside(mlopsdeploy, tmp_path, bert, name):
    content, message = SET_ASIDE[name]
    (tmp_path / name).write_bytes(content)
    done = mlopsdeploy("batch", name, "--model", bert, "--json")
    assert done.code == 0, done
    assert message in " ".join(done.err.split())
    stem, suffix = name.split(".")
    errors = tmp_path / f"{stem}.predictions.{suffix}.errors.jsonl"
    assert len(errors.read_text("utf-8").splitlines()) == 1
    assert json.loads(done.out)["failed"] == 1


def test_too_many_bad_rows(mlopsdeploy, tmp_path, bert):
    rows = b"".join(b"%d,good food %d\n" % (number, number) for number in range(30))
    (tmp_path / "r.csv").write_bytes(b"id,review_text\n" + rows + b"1,2,3\n" * 3)
    done = mlopsdeploy("batch", "r.csv", "--model", bert)
    assert done.code == 2
    (line,) = done.lines
    assert "3 of 33 rows are bad, more than --max-errors allows" in line
    assert "r.csv: line 32: has 3 fields" in line
    errors = tmp_path / "r.predictions.csv.unfinished" / "errors.jsonl"
    assert str(errors.relative_to(tmp_path)) in line
    assert len(errors.read_text("utf-8").splitlines()) == 3
    assert mlopsdeploy("batch", "r.csv", "--model", bert, "--max-errors", "3").code == 0


USAGE_ERRORS = {
    "no such file": (["none.csv"], "none.csv: no such file"),
    "a folder": (["sub"], "sub: no .csv, .jsonl or .parquet file there"),
    "no input": ([], "no input: name a file"),
    "no such text column": (["r.csv", "--text-column", "txt"], "no column 'txt'; there are: 'id'"),
    "output folder": (["r.csv", "-o", "none/r.csv"], "the folder none does not exist"),
    "output format": (["r.csv", "-o", "r.xlsx"], "can't tell its format"),
    "output is input": (["r.csv", "-o", "r.csv"], "is the input itself"),
    "output is input, by another path": (["r.csv", "-o", "sub/../r.csv"], "is the input itself"),
    "output is input, by a link": (["r.csv", "-o", "link.csv"], "is the input itself"),
    "input is a link to the output": (["link.csv", "-o", "r.csv"], "is the input itself"),
    "unknown key": (
        ["r.csv", "-c", "typo.yaml"],
        "unknown key 'batchsize'; did you mean 'batch_size'?",
    ),
    "wrong type": (["r.csv", "-c", "type.yaml"], "type.yaml: batch_size: 'many'"),
    "no such config": (["r.csv", "-c", "none.yaml"], "none.yaml: no such file"),
    "json with standard output": (["r.csv", "-o", "-", "--json"], "--json and --output -"),
    "unknown model": (["r.csv", "-m", "sentimant"], "no model called 'sentimant'"),
    "no such model file": (["r.csv", "-m", "none.onnx"], "none.onnx: no such file or folder"),
    "no such model folder": (["r.csv", "-m", "./a/b/c"], "no such file or folder"),
    "not a model": (["r.csv", "-m", "r.csv"], "not a model file"),
    "model folder with nothing": (["r.csv", "-m", "sub"], "is it a model folder?"),
    "model folder without weights": (["r.csv", "-m", "weightless"], "no weights; expected"),
    "corrupt onnx": (["r.csv", "-m", "corrupt"], "not an ONNX file, or cut off"),
    "corrupt onnx, onnxruntime": (
        ["r.csv", "-m", "corrupt", "--runtime", "onnxruntime"], "not an ONNX file, or cut off",
    ),
    "corrupt onnx file": (["r.csv", "-m", "corrupt.onnx"], "not an ONNX file, or cut off"),
    "corrupt tokenizer": (["r.csv", "-m", "mute"], "not a tokenizer that can be read"),
    "no tokenizer": (["r.csv", "-m", "tongueless"], "has no tokenizer.json"),
    "corrupt config": (["r.csv", "-m", "mad"], "config.json: not JSON"),
    "hub without network": (["r.csv", "-m", "org/name"], "org/name: not in the local cache"),
    "hub with a revision": (["r.csv", "-m", "org/name-v1.5@main"], "not in the local cache"),
    "unknown runtime": (["r.csv", "--runtime", "openvin"], "did you mean 'openvino'?"),
    "precision": (["r.csv", "--precision", "fp16"], "--precision: 'fp16'"),
    "batch size": (["r.csv", "--batch-size", "0"], "--batch-size: 0"),
    "threshold": (["r.csv", "--threshold", "2"], "threshold 2: a probability is from 0 to 1"),
    "delimiter": (["r.csv", "--delimiter", ";;"], "--delimiter: ';;'"),
    "wide delimiter": (["r.csv", "--delimiter", "§"], "--delimiter: '§'"),
    "encoding": (["r.csv", "--encoding", "utf-99"], "unknown encoding 'utf-99'"),
}  # fmt: skip


@pytest.fixture
def corner(tmp_path, bert):
    """A folder with a good input, and models and configs that are each wrong in one way."""
    (tmp_path / "r.csv").write_bytes(GOOD)
    (tmp_path / "link.csv").symlink_to("r.csv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "typo.yaml").write_text("batchsize: 5\n", "utf-8")
    (tmp_path / "type.yaml").write_text("batch_size: many\n", "utf-8")
    (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x07not really" * 20)
    for name, broken in {
        "weightless": "onnx/model.onnx",
        "corrupt": "onnx/model.onnx",
        "mute": "tokenizer.json",
        "tongueless": "tokenizer.json",
        "mad": "config.json",
    }.items():
        (tmp_path / name / "onnx").mkdir(parents=True)
        for part in ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"):
            (tmp_path / name / part).write_bytes((bert / part).read_bytes())
        if name.endswith("less"):
            (tmp_path / name / broken).unlink()
        else:
            content = (bert / broken).read_bytes()
            (tmp_path / name / broken).write_bytes(content[: len(content) // 2])
    return tmp_path


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_a_usage_error(mlopsdeploy, leftovers, corner, bert, case):
    arguments, message = USAGE_ERRORS[case]
    if "-m" not in arguments:
        arguments = [*arguments, "-m", str(bert)]
    line = refused(mlopsdeploy("batch", *arguments), leftovers)
    assert message in line
    assert (corner / "r.csv").read_bytes() == GOOD


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "many"], ["--batch-size"]),
        (["--batchsize", "5"], ["--batchsize", "--batch-size"]),
        (["another.csv"], ["another.csv"]),
    ],
)
def test_a_command_line_that_cannot_be_read(mlopsdeploy, leftovers, corner, arguments, words):
    """The last line says what is wrong; Typer's own messages begin with the usage."""
    result = mlopsdeploy("batch", "r.csv", *arguments)
    assert result.code == 2
    assert leftovers() == []
    for word in words:
        assert word in result.lines[-1]


def test_a_hub_that_cannot_be_reached(mlopsdeploy, leftovers, corner, tmp_path):
    """Not switched off, but with nobody listening: no stack of retries."""
    unreachable = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hf"),
    }
    result = mlopsdeploy("batch", "r.csv", "-m", "org/name", env=unreachable)
    line = refused(result, leftovers)
    assert "org/name: not in the local cache, and the hub did not give it" in line
    assert "pass the path of a downloaded folder" in line


def test_a_folder_that_may_not_be_written_to(mlopsdeploy, leftovers, corner, bert):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (corner / "sub").chmod(0o500)
    line = refused(mlopsdeploy("batch", "r.csv", "-m", bert, "-o", "sub/o.csv"), leftovers)
    assert "no permission to write" in line


def test_missing_packages_are_one_line(mlopsdeploy, leftovers, corner):
    """A plain `pip install mlopsdeploy`, without the batch extra."""
    without = corner / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys\nsys.modules['pyarrow'] = None\n")
    line = refused(mlopsdeploy("batch", "r.csv", env={"PYTHONPATH": str(without)}), leftovers)
    assert "pip install 'mlopsdeploy[batch]'" in line


# ---------------------------------------------------------------- what works


def test_the_whole_way_with_no_setting_but_the_model(mlopsdeploy, corner, bert):
    done = mlopsdeploy("batch", "r.csv", "--model", bert)
    assert done.code == 0, done
    assert done.out == b""
    written = (corner / "r.predictions.csv").read_text("utf-8").splitlines()
    assert written[0] == "id,review_text,label,score,truncated"
    assert re.fullmatch(r"1,the food is great,(NEGATIVE|POSITIVE),0\.\d{1,6},false", written[1])
    assert len(written) == 3
    assert "r.predictions.csv" in done.err
    assert "\r" not in done.err, "no progress bar where there is no terminal"
    assert "\x1b" not in done.err, "no colours where there is no terminal"


def test_json_summary_is_all_that_stands_on_standard_output(mlopsdeploy, corner, bert):
    done = mlopsdeploy("batch", "r.csv", "--model", bert, "--json")
    summary = json.loads(done.out)
    assert summary["rows"] == 2
    assert summary["failed"] == 0
    assert summary["output"] == "r.predictions.csv"
    assert summary["runtime"] == "openvino", "the default on a CPU"


def test_flags_environment_and_yaml_together(mlopsdeploy, corner, bert):
    file = {"input": "r.csv", "model": str(bert), "prefix": "y_", "limit": 1, "batch_size": 3}
    (corner / "batch.yaml").write_text(yaml.safe_dump(file), "utf-8")
    done = mlopsdeploy(
        "batch", "-c", "batch.yaml", "--limit", "2",
        env={"MLOPSDEPLOY_PREFIX": "e_", "MLOPSDEPLOY_LIMIT": "1"},
    )  # fmt: skip
    assert done.code == 0, done
    written = (corner / "r.predictions.csv").read_text("utf-8").splitlines()
    assert written[0] == "id,review_text,e_label,e_score,e_truncated"
    assert len(written) == 3


def test_a_wrong_environment_variable_is_named(mlopsdeploy, leftovers, corner):
    line = refused(mlopsdeploy("batch", "r.csv", env={"MLOPSDEPLOY_LIMIT": "few"}), leftovers)
    assert line.startswith("MLOPSDEPLOY_LIMIT: limit: 'few'")


def test_a_variable_that_is_no_setting_is_reported_and_those_of_others_are_not(mlopsdeploy):
    others = {
        "MLOPSDEPLOY_CAMERA": "1",  # a setting of edge
        "MLOPSDEPLOY_DATA_AT": "server",  # of choose
        "MLOPSDEPLOY_SERVICE_HOST": "10.0.0.1",  # of Kubernetes, for a Service of this name
        "MLOPSDEPLOY_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    done = mlopsdeploy("batch", env={"MLOPSDEPLOY_THRESOLD": "0.5", **others})
    assert done.lines == [
        "mlopsdeploy: warning: MLOPSDEPLOY_THRESOLD is not a setting; "
        "did you mean MLOPSDEPLOY_THRESHOLD?",
        "mlopsdeploy: no input: name a file, as in 'mlopsdeploy batch reviews.csv'",
    ]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b'{"id": 1, "review_text": "good"}\n',
        gzip.compress(GOOD, mtime=0),
        b"\xef\xbb\xbf" + GOOD,
    ],
)
def test_standard_input_to_standard_output(mlopsdeploy, bert, leftovers, tmp_path, content):
    done = mlopsdeploy("batch", "-", "--model", bert, "--report", "r.html", stdin=content)
    assert done.code == 0, done
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    first = plain.splitlines()[0].rstrip(b"}")
    assert done.out.startswith(first)
    assert len(done.out.splitlines()) == len(plain.splitlines())
    assert b"standard output" in done.err.encode()
    assert leftovers() == []
    assert (tmp_path / "r.html").exists()


def test_standard_input_of_parquet(mlopsdeploy, bert, tmp_path):
    import io

    import pyarrow as pa
    import pyarrow.parquet

    packed = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"review_text": ["good", "bad"]}), packed)
    done = mlopsdeploy("batch", "-", "--model", bert, stdin=packed.getvalue())
    assert done.code == 0, done
    assert pyarrow.parquet.read_table(io.BytesIO(done.out)).num_rows == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "standard input: the file is empty"), (b"id,a\n1,2\n", "no column reads like text")],
)
def test_standard_input_that_is_not_right(mlopsdeploy, leftovers, bert, content, message):
    done = mlopsdeploy("batch", "-", "--model", bert, stdin=content)
    assert message in refused(done, leftovers)


def test_a_tabular_model(mlopsdeploy, customers, churn_onnx):
    done = mlopsdeploy("batch", customers, "--model", churn_onnx, "--json")
    assert done.code == 0, done
    summary = json.loads(done.out)
    assert (summary["rows"], summary["failed"]) == (50, 0)
    assert summary["columns"] == {name: name for name in ("age", "visits", "spend")}


def test_a_pattern_that_the_shell_has_spread_out(mlopsdeploy, tmp_path):
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_text("text\ngood\n", "utf-8")
    done = mlopsdeploy("batch", "a.csv", "b.csv", "c.csv")
    assert done.code == 2
    assert done.lines == [
        "mlopsdeploy: 3 inputs (a.csv, b.csv, …), where one is taken; name their folder, or quote "
        "the pattern: 'photos/*.jpg'"
    ]
