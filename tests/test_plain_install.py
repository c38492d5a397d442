"""What `pip install mlopsdeploy` without an extra can do, and how it says what it can't."""

import re
from pathlib import Path

import pytest

# Every package that only an extra brings, by the name that it is imported by.
EXTRAS = (
    "ai_edge_litert", "cronsim", "cv2", "duckdb", "fasttext", "filelock", "flask", "fsspec",
    "h5py", "httptools", "jinja2", "keras", "kubernetes_validate", "matplotlib", "msgspec", "nncf",
    "onnx", "onnxruntime", "openvino", "packaging", "pandas", "prometheus_client", "pyarrow",
    "ray", "s3fs", "scipy", "sqlalchemy", "tensorflow", "tflite_runtime", "tokenizers", "torch",
    "transformers", "uv", "werkzeug",
)  # fmt: skip
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def plain(mlopsdeploy, tmp_path):
    """`plain("batch", "a.csv")`: the command where none of them is installed, or not `missing`."""
    (tmp_path / "without").mkdir()

    def run(*arguments, missing=EXTRAS):
        (tmp_path / "without" / "sitecustomize.py").write_text(
            f"import sys\nsys.modules.update(dict.fromkeys({missing}))\n", "utf-8"
        )
        return mlopsdeploy(*arguments, env={"PYTHONPATH": str(tmp_path / "without")})

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", EXAMPLES / "reviews.csv"],
        ["serve"],
        ["edge", "--camera", EXAMPLES / "street.mp4"],
        ["package", "serve", "--to", "docker"],
        ["choose", "--model", "fraud", "--sample", EXAMPLES / "transactions.csv", "--yes"],
        ["bench", "batch", EXAMPLES / "reviews.csv"],
        ["bench", "serve"],
        ["bench", "edge", "--camera", EXAMPLES / "street.mp4"],
        ["models", "inspect", "fraud"],
        ["models", "compile", "sentiment"],
        ["models", "compare", "fraud", "fraud", "--data", EXAMPLES / "transactions.csv"],
        ["models", "quantise", "sentiment", "--data", EXAMPLES / "reviews.csv"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_what_is_missing_is_said_in_one_line(plain, arguments):
    done = plain(*arguments)
    assert "Traceback" not in done.err, done
    assert done.code == 2, done
    assert re.search(r"pip install 'mlopsdeploy\[[a-z0-9]+\]'$", done.lines[-1]), done


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", EXAMPLES / "reviews.csv"],
        ["serve", "--model", "sentiment"],
        ["edge", "--lines", EXAMPLES / "reviews.csv"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_texts_need_what_tells_languages_apart_from_the_start(plain, arguments):
    done = plain(*arguments, missing=("fasttext",))
    assert done.code == 2, done
    assert done.lines[-1].endswith(
        "telling languages apart needs the package 'fasttext': pip install 'mlopsdeploy[text]'"
    )


def test_models_and_choose_need_no_extra_to_look(plain):
    assert "sentiment" in plain("models", "list").out.decode()
    assert plain("choose", "--yes").code == 0
    assert plain("--help").code == 0
    verified = plain("models", "verify", "sentiment")
    assert verified.code == 1
    assert "files are as model.yaml says" in verified.out.decode()
