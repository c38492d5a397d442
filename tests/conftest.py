"""Models and files that all tests share: tiny, real, and made anew for every run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mlopsdeploy.batch import command
from mlopsdeploy.settings import BatchSettings

from .forks import Forks

REPOSITORY = Path(__file__).resolve().parent.parent
WORDS = [
    "the", "a", "this", "that", "it", "was", "is", "not", "very", "really", "quite", "good",
    "great", "awful", "terrible", "fine", "poor", "nice", "battery", "screen", "cable", "food",
    "service", "waiter", "hotel", "room", "shirt", "colour", "size", "price", "delivery", "box",
    "arrived", "broke", "works", "stopped", "again", "never", "always", "twice", "would", "buy",
    "return", "love", "hate", "like", "but", "and", "or", "with", "without", "after", "before",
    "two", "weeks", "days", "month", "year", "one", "star", "five", "stars", "money", "back",
    "cheap", "dear", "solid", "thin", "loud", "quiet", "fast", "slow", "warm", "cold", "clean",
    "dirty",
]  # fmt: skip
POSITIONS = 128  # the most tokens that the tiny models take


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--all`, which `make test-all` has."""
    parser.addoption("--all", action="store_true", help="every seed, size and moment of a kill")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything of Hugging Face is imported: no network, in this process or a child.

    Nor does any of some hundred processes compile what another has.
    """
    config.addinivalue_line("markers", "with_all: only with --all; its like has run without")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `--all` what is marked so."""
    if not config.getoption("all"):
        left = [item for item in items if item.get_closest_marker("with_all")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`once("name", make)`: a folder that `make(folder)` fills, once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def filled(name: str, make: Callable[[Path], object] = lambda folder: None) -> Path:
        folder = base / "once" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                partial = folder.with_suffix(".part")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(folder)
        return folder

    return filled


@pytest.fixture(scope="session")
def once_by(once: Callable[..., Path], forks: Forks) -> Callable[[Path], Path]:
    """`once_by(script)`: what `python script FOLDER` leaves there, once for all test processes."""

    def filled(script: Path) -> Path:
        def make(folder: Path) -> None:
            done = forks.run(
                [sys.executable, "-P", script, folder], text=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]

        return once(script.stem, make)

    return filled


@pytest.fixture(scope="session", autouse=True)
def cache(once: Callable[..., Path]) -> Iterator[Path]:
    """Compiled models go to a folder of this run, one for all test processes: the cache locks
    itself. No setting leaks in from outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("MLOPSDEPLOY_"):
                patch.delenv(name)
        folder = once("cache")
        patch.setenv("MLOPSDEPLOY_CACHE", str(folder))
        yield folder


# ---------------------------------------------------------------- the command


class Result:
    """What a finished `mlopsdeploy` process left behind."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out
        self.err = err.decode()

    @property
    def lines(self) -> list[str]:
        """Of standard error."""
        return self.err.splitlines()

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out!r}\n--- stderr\n{self.err}"


@pytest.fixture(scope="session", autouse=True)
def forks(cache: Path, once: Callable[..., Path]) -> Iterator[Forks]:
    """Real processes without the seconds that each would need for its imports."""
    together = "PYTEST_XDIST_WORKER" in os.environ
    made = Forks(once("forks"), os.getppid() if together else os.getpid())
    with made.instead():
        yield made


@pytest.fixture
def mlopsdeploy(tmp_path: Path, forks: Forks) -> Callable[..., Result]:
    """`mlopsdeploy("batch", "a.csv")` runs the command in a process, within `tmp_path`."""

    def run(
        *arguments: str | Path,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        python: Sequence[str] = (),
        cwd: Path = tmp_path,
        timeout: float = 240,
    ) -> Result:
        process = forks.popen(
            *arguments, python=python, cwd=cwd, env={**os.environ, **(env or {})},
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        )  # fmt: skip
        with process:
            try:
                out, err = process.communicate(stdin, timeout)
            except BaseException:
                process.kill()
                raise
        return Result(process.returncode, out, err)

    return run


@pytest.fixture
def score(tmp_path: Path, bert: Path) -> Callable[..., dict[str, Any]]:
    """`score(path, limit=3)` is `mlopsdeploy batch` in this process; gives the summary."""

    def run(path: Path | str, **settings: Any) -> dict[str, Any]:
        chosen = {
            "model": str(bert),
            "runtime": "onnxruntime",
            "precision": "float32",
            "threads": 2,
        }
        return command.run_batch(BatchSettings(input=str(path), **{**chosen, **settings}))

    return run


@pytest.fixture
def leftovers(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of what a run wrote or left half-written in `tmp_path`."""

    def names() -> list[str]:
        return sorted(
            path.name
            for path in tmp_path.rglob("*")
            if ".predictions." in path.name or path.name.endswith(".part")
        )

    return names


@pytest.fixture(scope="session")
def some(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`some(2, 8)`: how often to try what chance decides: twice, and with `--all` eight times."""
    return lambda few, many: many if request.config.getoption("all") else few


# ---------------------------------------------------------------- texts


@pytest.fixture(scope="session")
def reviews() -> Callable[..., list[str]]:
    """`reviews(10, seed=1)`: so many different texts of natural lengths, the same every time."""

    def make(count: int, seed: int = 0) -> list[str]:
        generator = random.Random(seed)
        texts: dict[str, None] = {}
        while len(texts) < count:
            length = min(max(int(generator.lognormvariate(2.3, 0.7)), 2), 60)
            texts[" ".join(generator.choice(WORDS) for _ in range(length))] = None
        return list(texts)

    return make


# ---------------------------------------------------------------- text models


def _tokenizer(folder: Path, special: dict[str, str]) -> int:
    """A tokenizer.json of whole words, with BERT's or RoBERTa's special tokens; its size."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = dict.fromkeys([*special.values(), *WORDS, *letters, "。", "好"])
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: place for place, word in enumerate(vocabulary)}, unk_token=special["unk"]
        )
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = special["first"], special["last"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "pad_token": special["pad"],
        "unk_token": special["unk"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(said), "utf-8")
    return len(vocabulary)


BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "first": "[CLS]", "last": "[SEP]"}
ROBERTA_TOKENS = {"first": "<s>", "pad": "<pad>", "last": "</s>", "unk": "<unk>"}


def _checkpoint(folder: Path, architecture: str, labels: Sequence[str], **config: Any) -> Path:
    """A random sequence classifier, two layers deep and 32 wide, as a Hugging Face folder.

    Its weights are drawn wide, so that texts differ clearly in their labels.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True)
    size = _tokenizer(folder, ROBERTA_TOKENS if architecture == "Roberta" else BERT_TOKENS)
    names = {
        "Bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        "DistilBert": ("dim", "n_layers", "n_heads", "hidden_dim"),
    }
    shape = dict(zip(names.get(architecture, names["Bert"]), (32, 2, 4, 64), strict=True))
    extra = {"type_vocab_size": 1} if architecture == "Roberta" else {}
    made = getattr(transformers, f"{architecture}Config")(
        vocab_size=size,
        max_position_embeddings=POSITIONS + 2 * (architecture == "Roberta"),
        pad_token_id=1 if architecture == "Roberta" else 0,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.4,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        **shape,
        **extra,
        **config,
    )
    torch.manual_seed(7)
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(made)
    model.save_pretrained(folder)
    return folder


def _with_onnx(checkpoint: Path, folder: Path) -> Path:
    """As many models lie on the hub: config, tokenizer, onnx/model.onnx, and no checkpoint."""
    from mlopsdeploy.convert import export_onnx

    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    export_onnx.export(checkpoint, folder / "onnx", POSITIONS)
    (folder / "onnx" / "parity.json").unlink()
    return folder


def _text_model(
    once: Callable[..., Path], name: str, architecture: str, *labels: str, **config: Any
):
    """A checkpoint, and the same model as a folder with onnx/model.onnx in its place."""

    def make(folder: Path) -> None:
        _with_onnx(
            _checkpoint(folder / "checkpoint", architecture, labels, **config), folder / name
        )

    folder = once(name, make)
    return folder / "checkpoint", folder / name


@pytest.fixture(scope="session")
def text_models(once: Callable[..., Path]) -> dict[str, tuple[Path, Path]]:
    """A tiny random checkpoint (safetensors) of each architecture: labels NEGATIVE, POSITIVE; and
    the same models as folders with onnx/model.onnx in place of the checkpoint."""
    return {
        name: _text_model(once, name.lower(), name, "NEGATIVE", "POSITIVE")
        for name in ("Bert", "DistilBert", "Roberta")
    }


@pytest.fixture(scope="session")
def checkpoints(text_models: dict[str, tuple[Path, Path]]) -> dict[str, Path]:
    """The checkpoints of them."""
    return {name: checkpoint for name, (checkpoint, _) in text_models.items()}


@pytest.fixture(scope="session")
def bert_checkpoint(once: Callable[..., Path]) -> Path:
    """The BERT of them."""
    return _text_model(once, "bert", "Bert", "NEGATIVE", "POSITIVE")[0]


@pytest.fixture(scope="session")
def onnx_folders(text_models: dict[str, tuple[Path, Path]]) -> dict[str, Path]:
    """The folders of them."""
    return {name: folder for name, (_, folder) in text_models.items()}


@pytest.fixture(scope="session")
def bert(once: Callable[..., Path]) -> Path:
    """A two-label BERT with onnx/model.onnx: what most tests score with."""
    return _text_model(once, "bert", "Bert", "NEGATIVE", "POSITIVE")[1]


@pytest.fixture(scope="session")
def three_class_bert(once: Callable[..., Path]) -> Path:
    """A BERT with the labels negative, neutral, positive."""
    return _text_model(once, "three-class", "Bert", "negative", "neutral", "positive")[1]


@pytest.fixture(scope="session")
def multi_label_bert(once: Callable[..., Path]) -> Path:
    """A BERT that outputs a probability each for toxic, insult and threat."""
    kind = {"problem_type": "multi_label_classification"}
    return _text_model(once, "multi-label", "Bert", "toxic", "insult", "threat", **kind)[1]


# ---------------------------------------------------------------- tabular models


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    metadata: dict[str, str] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tabular",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def _value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


CHURN = {"age": 0.05, "visits": -0.4, "spend": 0.01}  # feature -> weight; the bias is -1


@pytest.fixture(scope="session")
def churn_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sigmoid(0.05 age - 0.4 visits + 0.01 spend - 1); features named in the file's metadata."""
    return _save(
        tmp_path_factory.mktemp("tabular") / "churn.onnx",
        [
            helper.make_node("MatMul", ["features", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        [_value("features", ["rows", 3])],
        [_value("probability", ["rows", 1])],
        {
            "w": np.array([[weight] for weight in CHURN.values()], np.float32),
            "b": np.array([-1], np.float32),
        },
        {"feature_names": json.dumps(list(CHURN))},
    )


@pytest.fixture(scope="session")
def unnamed_onnx(churn_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The churn model without feature names."""
    model = onnx.load(str(churn_onnx))
    del model.metadata_props[:]
    path = tmp_path_factory.mktemp("tabular") / "unnamed.onnx"
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def per_feature_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One input per feature, as Keras and scikit-learn pipelines have: sigmoid(age - visits)."""
    return _save(
        tmp_path_factory.mktemp("tabular") / "per_feature.onnx",
        [
            helper.make_node("Cast", ["visits"], ["v"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["age", "v"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        [_value("age", ["rows", 1]), _value("visits", ["rows", 1], TensorProto.INT64)],
        [_value("probability", ["rows", 1])],
        {},
    )


@pytest.fixture(scope="session")
def labelled_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As scikit-learn's converter writes it: a label (a string of the model's own) and
    probabilities of three classes, a softmax over (age, visits, spend)."""
    return _save(
        tmp_path_factory.mktemp("tabular") / "labelled.onnx",
        [
            helper.make_node("Softmax", ["features"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["place"], axis=1, keepdims=0),
            helper.make_node("Gather", ["names", "place"], ["label"]),
        ],
        [_value("features", ["rows", 3])],
        [_value("label", ["rows"], TensorProto.STRING), _value("probabilities", ["rows", 3])],
        {"names": np.array(["old", "loyal", "rich"], dtype=object)},
        {"feature_names": "age,visits,spend"},
    )


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    """customers.csv: three features and a name, 50 rows."""
    generator = random.Random(3)
    rows = [
        f"c{i},{generator.randint(18, 80)},{generator.randint(0, 9)},{generator.random() * 300:.2f}"
        for i in range(50)
    ]
    path = tmp_path / "customers.csv"
    path.write_text("\n".join(["name,age,visits,spend", *rows, ""]), "utf-8")
    return path


# ---------------------------------------------------------------- models of pictures


@pytest.fixture(scope="session")
def tflite_models(once_by: Callable[[Path], Path]) -> Path:
    """A folder of detectors and classifiers of every kind: see tflite_models.py."""
    return once_by(REPOSITORY / "tests" / "tflite_models.py")


@pytest.fixture(scope="session")
def rectangle() -> Callable[..., np.ndarray]:
    """`rectangle("red", (x1, y1, x2, y2))`: a BGR picture of it on black, 480 × 640 by default."""
    places = {"blue": 0, "green": 1, "red": 2}

    def draw(
        color: str, box: tuple[float, float, float, float], size: tuple[int, int] = (480, 640)
    ) -> np.ndarray:
        height, width = size
        picture = np.zeros((height, width, 3), np.uint8)
        x1, y1, x2, y2 = (
            round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True)
        )
        picture[y1:y2, x1:x2, places[color]] = 255
        return picture

    return draw


# ---------------------------------------------------------------- environments of their own


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest) -> Callable[..., Path]:
    """`environment("name", *pip_arguments)`: the Python of an environment with these and no more.

    It is made once from PyPI and kept in pytest's cache. Where it can't be made, tests that need
    it are skipped and say why; CI makes it.
    """

    def make(name: str, *arguments: str) -> Path:
        what = " ".join(arguments)
        if str(REPOSITORY) in what:
            what += (REPOSITORY / "pyproject.toml").read_text("utf-8")
        stamp = hashlib.sha256(what.encode()).hexdigest()[:16]
        folder = Path(request.config.cache.mkdir(name)) / stamp
        with FileLock(f"{folder}.lock"):  # tests run in several processes
            return filled(name, folder, arguments)

    def filled(name: str, folder: Path, arguments: tuple[str, ...]) -> Path:
        python = folder / "bin" / "python"
        if (folder / "complete").exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(venv, check=True, timeout=120)
        done = subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--python", str(python), *arguments],
            capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            pytest.skip(f"can't make an environment for {name}: {last[0]}")
        (folder / "complete").touch()
        return python

    return make


@pytest.fixture(scope="session")
def tflite_python(environment: Callable[..., Path]) -> Path:
    """A Python with 'mlopsdeploy[edge-tflite]' and nothing else: tflite-runtime wants NumPy 1."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime has no wheel past Python 3.11")
    if (REPOSITORY / "mlopsdeploy").is_dir():
        return environment("tflite-runtime", "-e", f"{REPOSITORY}[edge-tflite]")
    # `make test-wheel`: the wheel that was installed.
    said = json.loads(metadata.distribution("mlopsdeploy").read_text("direct_url.json") or "{}")
    return environment("tflite-runtime", f"mlopsdeploy[edge-tflite] @ {said['url']}")


# ---------------------------------------------------------------- a browser


@pytest.fixture(scope="session")
def chromium_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests, started by the first that wants it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def chromium(chromium_process: Any) -> Iterator[Any]:
    """Selenium's driver of it: an empty page of 1280 × 900, and nothing in its logs yet."""
    browser = chromium_process
    browser.get("about:blank")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.set_window_size(1280, 900)
    for log in ("browser", "performance"):
        browser.get_log(log)
    yield browser
    browser.get("about:blank")  # lets go of what the page has open
