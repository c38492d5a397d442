"""The child of `compile.checkpoint`: `python export_onnx.py CHECKPOINT FOLDER`.

Writes FOLDER/model.onnx and FOLDER/parity.json: its answers against PyTorch's, on random tokens
in batches of several shapes, padded rows among them.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import transformers

ROWS, LENGTHS = 4, (8, 33, 96)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Logits(torch.nn.Module):  # type: ignore[misc]  # torch is Any where it is not installed
    """The model with tensors in and one tensor out, as an exporter wants it."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.inputs, tensors, strict=True))).logits
        return logits


def export(checkpoint: Path, folder: Path) -> None:
    """Export, then prove."""
    # ONNX Runtime recognises attention only in the eager form, traced by the older exporter.
    model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
        checkpoint,
        local_files_only=True,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    if missing := sorted(loaded["missing_keys"]):  # transformers draws them at random
        sys.exit(f"{len(missing)} of the classifier's weights are missing, {missing[0]!r} first")
    model.eval()
    accepted = inspect.signature(model.forward).parameters
    inputs = [name for name in INPUTS if name in accepted]
    if getattr(model.config, "type_vocab_size", 0) <= 1 and "token_type_ids" in inputs:
        inputs.remove("token_type_ids")
    wrapped = _Logits(model, inputs).eval()
    file = folder / "model.onnx"
    example = _tokens(model.config, LENGTHS[0])
    axes = {name: {0: "rows", 1: "tokens"} for name in inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            tuple(example[name] for name in inputs),
            str(file),
            input_names=inputs,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "rows"}},
            opset_version=17,
            dynamo=False,
        )
    (folder / "parity.json").write_text(json.dumps(_prove(wrapped, file)), "utf-8")


def _tokens(config: Any, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(5, config.vocab_size, (ROWS, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    pad = config.pad_token_id if isinstance(config.pad_token_id, int) else 0
    ids[mask == 0] = pad
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def _prove(model: _Logits, file: Path) -> dict[str, object]:
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    largest, flips, rows = 0.0, 0, 0
    limit = getattr(model.model.config, "max_position_embeddings", None) or -1  # XLNet: no limit
    most = limit if limit > 0 else LENGTHS[-1] + 2
    for length in (min(length, most - 2) for length in LENGTHS):  # RoBERTa's count holds two more
        tokens = _tokens(model.model.config, length)
        with torch.inference_mode():
            expected = model(*(tokens[name] for name in model.inputs)).numpy()
        (got,) = session.run(None, {name: tokens[name].numpy() for name in model.inputs})
        largest = max(largest, float(np.abs(expected - got).max()))
        flips += int((expected.argmax(1) != got.argmax(1)).sum())
        rows += len(got)
    return {
        "largest_difference": largest,
        "label_flips": flips,
        "rows": rows,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": ort.__version__,
    }


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
