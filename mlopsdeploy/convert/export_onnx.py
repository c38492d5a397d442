"""The child of `convert.checkpoint`: `python export_onnx.py CHECKPOINT FOLDER LONGEST`.

Writes FOLDER/model.onnx and FOLDER/parity.json: its answers against those that transformers gives
to each row alone, for rows of several lengths up to the longest that the model takes, padded and
not, in batches of several sizes. It ends with `REFUSED` where the model itself is at fault, and
with 1 where only the export is; the last line on standard error says why.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import transformers

from mlopsdeploy.errors import ModelError, one_line
from mlopsdeploy.runtimes.transformers_classifier import Classifier

REFUSED = 3
ROWS = 2  # of each length
LENGTHS = (2, 3, 8, 33, 96, 200, 511, 512, 768, 1536)
LONGEST = 4096  # a row's attention takes gigabytes from here on
SECONDS = 120.0  # of the longer rows; how far these went is in the proof


class _Logits(torch.nn.Module):  # type: ignore[misc]  # torch is Any where it is not installed
    """The model with tensors in and one tensor out, as an exporter wants it."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier.model
        self.classifier = classifier

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.classifier.inputs, tensors, strict=True))
        if self.classifier.takes_mask and "attention_mask" not in given:
            # Without any, decoders look for several texts in a row, which can't be traced.
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        if isinstance(self.classifier.alike, int):
            return self._by_last(given, self.classifier.alike)
        logits: torch.Tensor = self.classifier.logits(given)
        return logits

    def _by_last(self, given: dict[str, torch.Tensor], end: int) -> torch.Tensor:
        """BART and T5 classify by the last end token; NaN where a row has none.

        Theirs selects all end tokens of all rows at once, which no graph can take apart again.
        """
        ids = given["input_ids"]
        shift = getattr(self.model, "_shift_right", None)  # BART does it further inside
        more = {"decoder_input_ids": shift(ids)} if shift else {}
        hidden = self.model.base_model(**given, **more, use_cache=False)[0]
        ends = (ids == end).to(torch.int64)
        last = (ends * torch.arange(ids.shape[1])).argmax(1)
        logits: torch.Tensor = self.model.classification_head(
            hidden[torch.arange(ids.shape[0]), last]
        )
        return torch.where(ends.sum(1, keepdim=True) > 0, logits, torch.nan)


def export(checkpoint: Path, folder: Path, longest: int) -> None:
    """Export, then prove."""
    # ONNX Runtime recognises attention only in the eager form, traced by the older exporter.
    try:
        classifier = Classifier(checkpoint, "float32", attn_implementation="eager")
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(REFUSED)
    wrapped = _Logits(classifier).eval()
    file = folder / "model.onnx"
    ids = classifier.tokens(ROWS, LENGTHS[2])
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    example["token_type_ids"] = torch.zeros_like(ids)
    with warnings.catch_warnings(), torch.inference_mode(), _said("PyTorch can't trace it"):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            tuple(example[name] for name in classifier.inputs),
            str(file),
            input_names=classifier.inputs,
            output_names=["logits"],
            dynamic_axes={
                **{name: {0: "rows", 1: "tokens"} for name in classifier.inputs},
                "logits": {0: "rows"},
            },
            opset_version=17,
            dynamo=False,
        )
    proof = _prove(classifier, file, longest)
    (folder / "parity.json").write_text(json.dumps(proof), "utf-8")


def _prove(classifier: Classifier, file: Path, longest: int) -> dict[str, object]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with _said("ONNX Runtime can't load what was exported"):
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    largest, flips, sizes = 0.0, 0, set()
    limit = min(longest, LONGEST)
    lengths = sorted({*(one for one in LENGTHS if one < limit), limit})
    alone: list[tuple[Any, Any]] = []
    began = time.monotonic()

    def compare(batch: list[tuple[Any, Any]]) -> None:
        nonlocal largest, flips
        sizes.add(len(batch))
        width = max(ids.shape[1] for ids, _ in batch)
        padded = [classifier.pad(ids, width) for ids, _ in batch]
        ids, mask = (torch.cat(part).numpy() for part in zip(*padded, strict=True))
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        with _said(f"what was exported can't compute {len(ids)} rows of {width} tokens"):
            (got,) = session.run(None, {name: feed[name] for name in classifier.inputs})
        expected = np.concatenate([one for _, one in batch])
        gap = np.abs(expected - got) / np.maximum(np.abs(expected), 1)
        largest = max(largest, float(np.nan_to_num(gap, nan=np.inf).max()))
        flips += int((expected.argmax(1) != got.argmax(1)).sum())

    for length in lengths:
        if time.monotonic() - began > SECONDS:
            break
        rows = classifier.tokens(ROWS, length).split(1)
        try:
            found = [(row, _alone(classifier, row)) for row in rows]
        except (RuntimeError, ValueError, IndexError):
            if length >= LENGTHS[2]:
                raise
            continue  # transformers itself can't: Funnel pools two tokens to none
        for one in found:
            compare([one])
        compare(found)
        alone += found
    pads = "attention_mask" in classifier.inputs
    if pads:  # in order of length, as batches are planned, and the shortest beside the longest
        for start in range(0, len(alone), 4):
            compare(alone[start : start + 4])
        compare([alone[0], alone[-1]])
    return {
        "largest_difference": largest,
        "label_flips": flips,
        "rows": len(alone),
        "lengths": sorted({row.shape[1] for row, _ in alone}),
        "padded": pads,
        "batches": sorted(sizes),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": ort.__version__,
    }


@contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  (PyTorch and ONNX Runtime have dozens of kinds)
        sys.stderr.write(f"{what}: {one_line(error)}\n")
        sys.exit(1)


def _alone(classifier: Classifier, row: Any) -> Any:
    """What transformers makes of a row without others, given what a tokenizer would give it."""
    with torch.inference_mode():
        return classifier.logits({"input_ids": row}).numpy()


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
