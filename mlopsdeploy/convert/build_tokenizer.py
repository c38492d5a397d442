"""The child of `convert.tokenizer`: `python build_tokenizer.py MODEL FOLDER`.

Writes FOLDER/tokenizer.json, made by transformers of what lies in MODEL, and FOLDER/parity.json.
What transformers gives for some texts of many kinds is the proof. It ends with 1 where there is no
such tokenizer; the last line on standard error says why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from mlopsdeploy.errors import one_line

TEXTS = (
    "Works like a charm.", "  TWO  spaces,\ttabs\nand lines  ", "naïve café, ÀÉÎÕÜ straße", "",
    "don't, can't; it's 3.14 or 1,000,000!", "很好吃，下次还来", "これはペンです。",
    "이 제품은 좋아요", "هذا المنتج سيئ", "Очень хорошо", "यह अच्छा है",
    "emoji \U0001f44d\U0001f3fd and \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a_b-c/d@e.com #tag", "x" * 300, "\u200bzero\u00a0width\ufeff", "\ufb01ne \u2460 \u2167 \u00bd",
    "<s> [CLS] </s> [MASK] <unk>", "e\u0301 combining",
)  # fmt: skip


def build(model: Path, folder: Path) -> None:
    """Make it, then compare."""
    how = {"local_files_only": True, "trust_remote_code": False}
    given = transformers.AutoTokenizer.from_pretrained(model, **how)
    backend = getattr(given, "backend_tokenizer", None) if given.is_fast else _converted(given)
    if not isinstance(backend, Tokenizer):
        sys.exit(f"its {type(given).__name__} works in Python alone, and has no fast form")
    file = folder / "tokenizer.json"
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(file))
    made = Tokenizer.from_file(str(file))
    by = [given]
    slow = transformers.AutoTokenizer.from_pretrained(model, use_fast=False, **how)
    if not slow.is_fast:
        by.append(slow)
    words = [word for word in list(given.get_vocab())[:2000] if word.strip()]
    texts = [*TEXTS, *(" ".join(words[start : start + 20]) for start in range(0, len(words), 20))]
    for text in texts:
        ids = made.encode(text).ids
        for one in by:
            if ids != one(text)["input_ids"]:
                sys.exit(f"the one made of it differs from {type(one).__name__} for {text[:40]!r}")
    if not any(made.encode(text).ids != made.encode("").ids for text in TEXTS):
        sys.exit("it makes no tokens of any text")
    proof = {"texts": len(texts), "by": sorted({type(one).__name__ for one in by})}
    (folder / "parity.json").write_text(json.dumps(proof), "utf-8")


def _converted(slow: Any) -> Any:
    from transformers.convert_slow_tokenizer import convert_slow_tokenizer

    try:
        return convert_slow_tokenizer(slow)
    except ValueError:  # it knows no way
        return None


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    try:
        build(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # noqa: BLE001  (each class of tokenizers fails in its own way)
        sys.exit(one_line(error))
