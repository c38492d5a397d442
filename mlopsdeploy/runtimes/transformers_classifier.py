"""A sequence classifier of transformers, and what it must be fed to answer as it does alone.

Transformers' own answer to a text is the one that it gives to the text alone, without padding.
Whether padding changes it, and whether types of tokens do, is tried on a few tokens, so that no
list of architectures has to be right.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from mlopsdeploy.errors import ModelError, one_line

SHORT, LONG = 6, 40  # tokens, of the texts that are tried
NOISE = {"float32": 1e-4, "bfloat16": 0.03}  # of a logit, relative to the largest


class Classifier:
    """The model, ready to be called.

    Args:
        folder: with `config.json` and weights in safetensors.
        precision: "float32" or "bfloat16".
        device: where it runs.
        how: more for `from_pretrained`.

    Attributes:
        inputs: the tensors that it takes. Without `attention_mask` the rows of a call must have one
            length, for padding would change their answers.
        takes_mask: whether it can be given a mask at all.
        alike: a token of which the rows of a call must have the same number, or None.

    Raises:
        ModelError: it can't be loaded or draws at random, or it can't compute a short text.
    """

    def __init__(self, folder: Path, precision: str, device: Any = "cpu", **how: Any) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.model, config = _loaded(folder, dtype=getattr(torch, precision), **how)
        self.model = self.model.to(device).eval()
        self.device = device
        text_config = config.get_text_config()
        if getattr(text_config, "pad_token_id", 0) is None:
            # Then the last token of a row counts, and rows must come one by one: with a number that
            # no token has, as many as are of one length may.
            text_config.pad_token_id = -1
        # BigBird leaves its sparse attention for good once it has seen a short row.
        sparse = getattr(config, "attention_type", "") == "block_sparse"
        self._forgetful = [
            module for module in self.model.modules()
            if sparse and hasattr(module, "set_attention_type")
        ]  # fmt: skip
        self.alike = config.eos_token_id if getattr(config, "is_encoder_decoder", False) else None
        self.vocabulary = int(self.model.get_input_embeddings().num_embeddings)
        accepted = inspect.signature(self.model.forward).parameters
        self.inputs = ["input_ids"]
        self.takes_mask = "attention_mask" in accepted
        self._more: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
        self.pads_left = _read(folder / "tokenizer_config.json").get("padding_side") == "left"
        with self._explained(folder):
            self._find_inputs(folder, accepted, NOISE[precision])

    def logits(self, tensors: dict[str, Any]) -> Any:
        """Of shape (rows, labels)."""
        for module in self._forgetful:
            module.set_attention_type("block_sparse")
        return self.model(**tensors, **self._more).logits

    def tokens(self, rows: int, length: int, seed: int = 0) -> Any:
        """Rows of made-up tokens from the whole vocabulary, the last one where it must be there."""
        config = self.model.config.get_text_config()
        special = {getattr(config, "pad_token_id", None), self.alike}
        draw = torch.Generator().manual_seed(seed + length)
        ids = torch.randint(0, self.vocabulary, (rows, length), generator=draw)
        ids[0, 0], ids[-1, 0] = 0, self.vocabulary - 1
        spare = next(one for one in range(self.vocabulary) if one not in special)
        for token in special:
            ids[ids == token] = spare
        if isinstance(self.alike, int):
            ids[:, -1] = self.alike
        return ids

    def pad(self, ids: Any, length: int) -> tuple[Any, Any]:
        """The ids filled up to a length, and the mask of those that were there."""
        number = getattr(self.model.config.get_text_config(), "pad_token_id", None)
        fill = torch.full((len(ids), length - ids.shape[1]), max(number or 0, 0))
        parts, masks = [ids, fill], [torch.ones_like(ids), torch.zeros_like(fill)]
        if self.pads_left:
            parts, masks = parts[::-1], masks[::-1]
        return torch.cat(parts, 1), torch.cat(masks, 1)

    def _find_inputs(self, folder: Path, accepted: Any, noise: float) -> None:
        short, long = (self.tokens(2, length) for length in (SHORT, LONG))
        expected = self._try(short)
        for ids, first in ((short, expected), (long, self._try(long))):
            if not _near(first, self._try(ids), noise):
                raise ModelError(
                    f"{folder}: draws at random: the same text has another answer each time"
                )
        types = torch.zeros_like(short)
        if "token_type_ids" in accepted and getattr(
            self.model.config, "type_vocab_size", None
        ) not in (0, 1):
            # In GPT-2 and XLM the type of a token is one more token.
            takes = _read(folder / "tokenizer_config.json").get("model_input_names") or ()
            alike = _near(expected, self._try(short, token_type_ids=types), noise)
            if alike or "token_type_ids" in takes:
                self.inputs.append("token_type_ids")
        ids, mask = self.pad(short, LONG)
        masked = {"attention_mask": mask} if self.takes_mask else {}
        # BigBird attends to other tokens in a longer row, from some length on.
        if masked and not self._forgetful and _near(expected, self._try(ids, **masked), noise):
            self.inputs.insert(1, "attention_mask")

    def _try(self, ids: Any, **more: Any) -> Any:
        tensors = {"input_ids": ids, **more}
        with torch.inference_mode():
            found = self.logits({name: one.to(self.device) for name, one in tensors.items()})
        return found.float().cpu()

    @contextmanager
    def _explained(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{folder}: transformers itself can't compute a text of {SHORT} or {LONG} tokens "
                f"with it ({one_line(error)})"
            ) from error


def _loaded(folder: Path, **how: Any) -> tuple[Any, Any]:
    try:
        model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True, **how
        )
    except Exception as error:  # of many kinds: each architecture checks in its own way
        reason = one_line(error)
        if "ignore_mismatched_sizes" in reason:  # the rest of that went to a log
            reason = "config.json and the weights are of different sizes"
        raise ModelError(f"{folder}: transformers can't load it ({reason})") from error
    if missing := sorted(loaded["missing_keys"]):  # transformers draws them at random
        raise ModelError(
            f"{folder}: {len(missing)} of the classifier's weights are not in it, {missing[0]!r} "
            "first; is it a text classifier's checkpoint?"
        )
    return model, model.config


def _near(one: Any, other: Any, noise: float) -> bool:
    return bool((one - other).abs().max() <= noise * max(1.0, float(one.abs().max())))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
