"""PyTorch with transformers: the checkpoint as it was trained, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mlopsdeploy.columns import Columns, Field, Runtime
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.runtimes.common import by_length, in_groups, no_rows, rows_where, takes_one_length
from mlopsdeploy.runtimes.transformers_classifier import Classifier


class Torch(Runtime):
    """A Hugging Face sequence classifier in eager mode.

    Where padding would change an answer, rows of one length are computed together.

    Args:
        file: a folder with `config.json` and weights in safetensors.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the device has it.
        threads, streams: see `load_model`; on a GPU there is one stream.

    Raises:
        ConfigError: int8 is asked for.
        ModelError: the folder can't be loaded.
    """

    formats: ClassVar = ("checkpoint",)
    precisions: ClassVar = ("float32", "bfloat16")

    def __init__(
        self, file: Path, *, precision: str = "auto", threads: int = 1, streams: int | None = None
    ) -> None:
        if precision == "int8":
            raise ConfigError("precision 'int8': torch runs float32 or bfloat16; use openvino")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tried: tuple[str, ...] = (precision,)
        if precision == "auto":
            tried = ("bfloat16", "float32") if _has_bfloat16(self._device) else ("float32",)
        on_cpu = self._device.type == "cpu"
        # A GPU takes one large batch at a time, each CPU core a small one of its own.
        self.streams = min(streams or threads, threads) if on_cpu else 1
        self.batch_scale = 1 if on_cpu else 64
        torch.set_num_threads(threads // self.streams)
        self._classifier, self.precision = self._load(file, tried)
        self.inputs = tuple(Field(name, "int64", (-1,)) for name in self._classifier.inputs)
        self.outputs = (Field("logits", "float32", (self._classifier.model.config.num_labels,)),)
        self._unmasked = takes_one_length(self.inputs)

    def _load(self, file: Path, precisions: Sequence[str]) -> tuple[Classifier, str]:
        """In the first precision that the model has all operations for; FNet lacks bfloat16."""
        *first, last = precisions
        for precision in first:
            with suppress(ModelError):
                return Classifier(file, precision, self._device), precision
        return Classifier(file, last, self._device), last

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`: `logits`, float32 of shape (rows, labels)."""
        ids = tensors["input_ids"]
        if not len(ids):
            return no_rows(self.outputs)
        # Looked at here, since a CUDA device is lost to the process after one that is too large.
        unknown = (ids < 0) | (ids >= self._classifier.vocabulary)
        if unknown.any():
            raise RowError("a token's number is beyond the model's table", rows_where(unknown))
        if self._unmasked:
            return by_length(self._run_alike, tensors)
        return self._run_alike(tensors)

    def _run_alike(self, tensors: Columns) -> Columns:
        alike = self._classifier.alike
        if not isinstance(alike, int):
            return self._run(tensors)
        return in_groups(self._run, tensors, (tensors["input_ids"] == alike).sum(axis=1))

    def _run(self, tensors: Columns) -> Columns:
        feed = {
            field.name: torch.from_numpy(np.ascontiguousarray(tensors[field.name])).to(self._device)
            for field in self.inputs
        }
        try:
            with torch.inference_mode():
                logits = self._classifier.logits(feed)
        except (RuntimeError, ValueError, IndexError) as error:
            raise RowError(f"PyTorch can't compute these values ({one_line(error)})") from error
        return {"logits": logits.float().cpu().numpy()}


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
