"""PyTorch with transformers: the checkpoint as it was trained, on a CPU or a CUDA device."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import ClassVar

import torch
import transformers
from safetensors import SafetensorError

from mlopsdeploy.columns import Columns, Field, Runtime
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.runtimes.common import no_rows, rows_where


class Torch(Runtime):
    """A Hugging Face sequence classifier in eager mode.

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
        if precision == "auto":
            precision = "bfloat16" if _has_bfloat16(self._device) else "float32"
        self.precision = precision
        on_cpu = self._device.type == "cpu"
        # A GPU takes one large batch at a time, each CPU core a small one of its own.
        self.streams = min(streams or threads, threads) if on_cpu else 1
        self.batch_scale = 1 if on_cpu else 64
        torch.set_num_threads(threads // self.streams)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
                file,
                local_files_only=True,
                dtype=getattr(torch, precision),
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelError(f"{file}: transformers can't load it ({one_line(error)})") from error
        if missing := sorted(loaded["missing_keys"]):  # transformers draws them at random
            raise ModelError(
                f"{file}: {len(missing)} of the classifier's weights are not in it, {missing[0]!r} "
                "first; is it a text classifier's checkpoint?"
            )
        self._model = model.to(self._device).eval()
        accepted = inspect.signature(model.forward).parameters
        self.inputs = tuple(
            Field(name, "int64", (-1,))
            for name in ("input_ids", "attention_mask", "token_type_ids")
            if name in accepted
        )
        self.outputs = (Field("logits", "float32", (model.config.num_labels,)),)

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`: `logits`, float32 of shape (rows, labels)."""
        ids = tensors["input_ids"]
        if not len(ids):
            return no_rows(self.outputs)
        # Looked at here, since a CUDA device is lost to the process after one that is too large.
        unknown = (ids < 0) | (ids >= self._model.get_input_embeddings().num_embeddings)
        if unknown.any():
            raise RowError("a token's number is beyond the model's table", rows_where(unknown))
        feed = {
            field.name: torch.from_numpy(tensors[field.name]).to(self._device)
            for field in self.inputs
        }
        try:
            with torch.inference_mode():
                logits = self._model(**feed).logits
        except (RuntimeError, ValueError, IndexError) as error:
            raise RowError(f"PyTorch can't compute these values ({one_line(error)})") from error
        return {"logits": logits.float().cpu().numpy()}


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
