"""A model that is quick, one that fails, and real processes to kill, for all batch tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    *("good", "bad", "food", "room", "cable", "great", "awful", "never", "again"),
    *("but", "very", "slow", "quiet", "box", "price", "poison"),
]
CHINESE = ["很", "好", "坏", "菜", "房间", "电线", "太", "慢", "价格", "再也", "不来", "安静"]
GERMAN = "Das Essen war sehr gut und der Kellner freundlich."
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
BAG = """
<ir_version: 8, opset_import: ["" : 17]>
bag (int64[rows,words] input_ids, int64[rows,words] attention_mask) => (float[rows,2] logits) {
  each = Gather(table, input_ids)
  mask = Cast<to = 1>(attention_mask)
  last = Constant<value = int64[1] {2}>()
  wide = Unsqueeze(mask, last)
  masked = Mul(each, wide)
  words_axis = Constant<value = int64[1] {1}>()
  sum = ReduceSum<keepdims = 0>(masked, words_axis)
  count = ReduceSum<keepdims = 0>(wide, words_axis)
  logits = Div(sum, count)
}
"""


def _bag(folder: Path, embeddings: int, words: Sequence[str] = WORDS) -> Path:
    """A text classifier that averages a vector per word, as Hugging Face lays models out.

    Some 50,000 short rows a second. With fewer embeddings than words, a row that has one of the
    last words makes ONNX Runtime raise.
    """
    (folder / "onnx").mkdir(parents=True)
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: place for place, word in enumerate([*SPECIAL, *words])}, unk_token="[UNK]"
        )
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"model_max_length": 128, "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said), "utf-8")
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
        "max_position_embeddings": 128,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")

    table = np.random.default_rng(1).normal(size=(embeddings, 2)).astype(np.float32)
    model = onnx.parser.parse_model(BAG)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    onnx.save(model, str(folder / "onnx" / "model.onnx"))
    return folder


@pytest.fixture(scope="session")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text classifier that does tens of thousands of rows a second."""
    return _bag(tmp_path_factory.mktemp("bag") / "bag", len(SPECIAL) + len(WORDS))


@pytest.fixture(scope="session")
def side_by_side(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of two such models, `en` and `zh`, and of `both`."""
    found = {}
    for language, words in (("en", WORDS), ("zh", CHINESE)):
        folder = _bag(tmp_path_factory.mktemp(language) / language, 30, words)
        (folder / "model.yaml").write_text(f"languages: [{language}]\n", "utf-8")
        found[language] = str(folder)
    return {**found, "both": f"{found['en']},{found['zh']}"}


@pytest.fixture(scope="session")
def mixed_reviews(quick_reviews: Callable[..., list[str]]) -> Callable[[int], list[str]]:
    """`mixed_reviews(10)`: so many for both of them, in turn; each tenth is for neither."""

    def make(count: int) -> list[str]:
        generator = random.Random(count)
        chinese = [" ".join(generator.choices(CHINESE, k=1 + row % 9)) for row in range(count)]
        texts = [
            pair[row % 2]
            for row, pair in enumerate(zip(quick_reviews(count), chinese, strict=True))
        ]
        texts[9::10] = [f"{GERMAN} {row}" for row in range(len(texts[9::10]))]
        return texts

    return make


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and ONNX Runtime raises over every batch that has the word `poison`."""
    return _bag(tmp_path_factory.mktemp("fragile") / "bag", len(SPECIAL) + len(WORDS) - 1)


@pytest.fixture(scope="session")
def quick_reviews() -> Callable[..., list[str]]:
    """`quick_reviews(10, seed=1)`: so many texts of that model's words, now and then one twice."""

    def make(count: int, seed: int = 0) -> list[str]:
        generator = random.Random(seed)
        return [
            " ".join(generator.choice(WORDS[:-1]) for _ in range(generator.randint(1, 12)))
            for _ in range(count)
        ]

    return make


# ---------------------------------------------------------------- processes

DIES = """
import os, signal, sys

def die_at(step, folder):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if event in ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir",
                     "os.truncate", "sqlite3.connect"):
            if os.path.abspath(str(arguments[0])).startswith(folder):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

die_at({step}, {folder!r})
"""
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@dataclass
class Ended:
    """How a process ended: its exit code, or minus the signal; and what it said."""

    code: int
    out: str
    said: str
    seconds: float


class Processes:
    """Starts `mlopsdeploy batch` as a process of its own, again and again."""

    def __init__(self, forks: Any) -> None:
        self._forks = forks

    def run(
        self,
        folder: Path,
        *arguments: object,
        commit: float = 0.0,
        kill: float | Callable[[], bool] | None = None,
        number: int = signal.SIGKILL,
        step: int = 0,
        biggest: int = 0,
        stdin: Path | None = None,
    ) -> Ended:
        """One run, to its end.

        Args:
            folder: where it runs.
            arguments: of `mlopsdeploy batch`.
            commit: seconds between commits.
            kill: send it a signal after so many seconds, or as soon as this is true.
            number: the signal.
            step: let it kill itself at its so many-th change of a file in the folder, from 1.
            biggest: bytes that a file may have; beyond, writing fails as on a full disk.
            stdin: its standard input; nothing by default.
        """
        prelude = [FULL.format(biggest)] * bool(biggest)
        prelude += [DIES.format(step=step, folder=str(folder))] * bool(step)
        with (stdin or Path(os.devnull)).open("rb") as source:
            process = self._forks.popen(
                "batch", *arguments, prelude="\n".join(prelude), cwd=folder, stdin=source,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "MLOPSDEPLOY_COMMIT_SECONDS": str(commit)},
            )  # fmt: skip
        started = time.monotonic()
        done = threading.Event()
        killer = threading.Thread(target=self._kill, args=(process.pid, kill, number, done))
        killer.start()
        try:
            out, said = process.communicate()
        finally:
            done.set()
            killer.join()
        seconds = time.monotonic() - started
        return Ended(process.returncode, out, said, seconds)

    @staticmethod
    def rows_done(output: Path) -> int:
        """How many rows an interrupted run has written for certain."""
        try:
            manifest = (output.parent / f"{output.name}.unfinished" / "manifest.json").read_bytes()
            return int(json.loads(manifest)["rows"])
        except (OSError, ValueError):
            return 0

    @classmethod
    def has_rows(cls, output: Path, more_than: int = 0) -> Callable[[], bool]:
        """Whether that is more than so many, to be asked when to kill it."""
        return lambda: cls.rows_done(output) > more_than

    @staticmethod
    def _kill(
        pid: int, when: float | Callable[[], bool] | None, number: int, done: threading.Event
    ) -> None:
        if when is None:
            return
        if callable(when):
            while not when():
                if done.wait(0.002):
                    return
        elif done.wait(when):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture(scope="session")
def processes(forks: Any) -> Processes:
    """Real processes to kill."""
    return Processes(forks)


# ---------------------------------------------------------------- who is told


class Listener:
    """A web server that is told how runs end.

    Attributes:
        url: its address.
        calls: path and JSON of each POST.
        status: what it answers; with 302, that it is at /elsewhere.
        answers: it waits for this before it does.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                listener.calls.append((self.path, json.loads(body)))
                listener.answers.wait(30)
                with contextlib.suppress(ConnectionError):
                    self.send_response(listener.status)
                    self.send_header("Location", "/elsewhere")
                    self.end_headers()

            def do_GET(self) -> None:
                listener.calls.append((self.path, {}))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A real server on a port of its own."""
    made = Listener()
    yield made
    made.close()
