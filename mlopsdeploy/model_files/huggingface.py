"""A Hugging Face folder: what its author wrote of the model, in `config.json` and beside it.

`architectures` decides what a model is, `problem_type` and the number of labels what its numbers
mean; `task:`, `activation:`, `multi_label:` and `labels:` of a `model.yaml` win over both.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlopsdeploy.core import plugins
from mlopsdeploy.core.model_yaml import ModelYaml
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.digest import graph_files
from mlopsdeploy.model_files.json_file import read_json
from mlopsdeploy.model_files.pointers import refuse_pointer

CLASSIFIER = "ForSequenceClassification"
TASKS = ("text_classification", "text_regression")
# What a head does, by the end of an architecture's name; a longer end before a shorter one.
_HEADS = {
    "ForTokenClassification": "labels each token of a text",
    "ForQuestionAnswering": "finds an answer's place in a text",
    "ForMaskedLM": "fills in masked words",
    "ForCausalLM": "writes text",
    "LMHeadModel": "writes text",
    "ForConditionalGeneration": "writes text from what it is given",
    "ForSeq2SeqLM": "writes text from text",
    "ForMultipleChoice": "chooses among texts",
    "ForNextSentencePrediction": "says whether one text follows another",
    "ForPreTraining": "is there to be fine-tuned",
    "ForImageClassification": "labels pictures",
    "ForVideoClassification": "labels videos",
    "ForObjectDetection": "finds objects in pictures",
    "SemanticSegmentation": "labels the pixels of pictures",
    "Segmentation": "labels the pixels of pictures",
    "ForDepthEstimation": "estimates depths in pictures",
    "ForAudioClassification": "labels sounds",
    "ForAudioFrameClassification": "labels sounds",
    "ForXVector": "tells voices apart",
    "ForCTC": "writes down speech",
    "ForSpeechSeq2Seq": "writes down speech",
    "TextModelWithProjection": "is an encoder without a head",
    "EncoderModel": "is an encoder without a head",
    "Model": "is an encoder without a head",
}
# Heads by the names of their weights, where `architectures` is missing; None: a text classifier's.
_WEIGHTS_OF = {
    "qa_outputs.": "ForQuestionAnswering",
    "pre_classifier.": None,
    "classifier.out_proj.": None,
    "classification_head.": None,
    "logits_proj.": None,
    "lm_head.": "a language model",
    "cls.predictions.": "ForMaskedLM",
    "vocab_transform.": "ForMaskedLM",
}
# The weights of the last layer, one row for each label.
_LAST = (
    "classifier.weight", "classifier.out_proj.weight", "classification_head.out_proj.weight",
    "score.weight", "logits_proj.weight", "classifier.linear_out.weight",
    "sequence_summary.summary.weight",
)  # fmt: skip
# Other forms of a checkpoint, none of which is opened.
_UNREADABLE = {
    "pytorch_model.bin": "a pickle, which runs its author's code when it is opened",
    "pytorch_model.bin.index.json": "pickles, which run their author's code when they are opened",
    "tf_model.h5": "TensorFlow's form of the checkpoint",
    "flax_model.msgpack": "Flax's form of the checkpoint",
}
_HOW_FROM = {"tf_model.h5": ", from_tf=True", "flax_model.msgpack": ", from_flax=True"}
# Models that number positions from padding_idx + 1, and so hold fewer tokens than positions.
_OFFSET_POSITIONS = {
    "altclip", "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer",
    "luke", "markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
# What transformers makes a tokenizer.json of, where there is none.
TOKENIZER_SOURCES = (
    "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
    "spm.model",
)  # fmt: skip
_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own


class OtherModelError(ModelError):
    """A model of another kind than those that answer to a text."""


class Understood(NamedTuple):
    """What a folder's author says of its model; the names are those of `ModelFiles`."""

    task: str
    labels: tuple[str, ...]
    labels_from: str
    multi_label: bool
    tokenizer: Path | None
    max_length: int
    pad_id: int
    pad_side: str
    facts: tuple[tuple[str, str, str], ...]


def understand(
    folder: Path, config: Mapping[str, Any], graphs: Mapping[str, Path], yaml: ModelYaml,
    named: tuple[str, ...],
) -> Understood:  # fmt: skip
    """Read a folder of a text model.

    Args:
        folder: with `config.json`.
        config: its content.
        graphs: a path by format.
        yaml: its `model.yaml`, or nothing.
        named: the labels of that.

    Raises:
        ModelError: it is no model of whole texts, or what it says doesn't fit together.
    """
    _check_types(folder / "config.json", config)
    weights = _weights(folder) if "checkpoint" in graphs else {}
    if yaml.task is None:
        _check_architecture(folder, config, weights, graphs)
        _check_pairs(folder, config)
    labels = named or _labels(config, folder)
    _check_head(folder, weights, labels, "model.yaml" if named else "config.json")
    task, multi_label, fact = _answer(folder, config, labels, yaml)
    tokens = read_json(folder / "tokenizer_config.json")
    tokenizer = tokenizer_of(folder)
    if tokenizer is not None:
        refuse_pointer(tokenizer)
    return Understood(
        task,
        labels,
        "model.yaml" if named else "config.json",
        multi_label,
        tokenizer,
        _max_length(folder, config, tokens),
        _pad_id(config, tokens, folder / "tokenizer.json"),
        _pad_side(folder, tokens),
        (fact,),
    )


def refuse_other_forms(folder: Path, files: Iterable[str]) -> None:
    """Say what a folder has in place of weights that can be opened.

    Args:
        folder: the model's; for the message.
        files: the names in it.

    Raises:
        ModelError: it has such a form, or an adapter alone.
    """
    names = set(files)
    if "adapter_config.json" in names:
        raise ModelError(
            f"{folder}: an adapter (adapter_config.json), which is no model alone; merge it into "
            "its base with peft: model.merge_and_unload().save_pretrained(folder)"
        )
    for name, what in _UNREADABLE.items():
        if name in names:
            how = _HOW_FROM.get(name, "")
            old = "; needs transformers 4" if how else ""
            raise ModelError(
                f"{folder}: {name} is {what}, and isn't read; where you trust it, convert it once: "
                f"AutoModelForSequenceClassification.from_pretrained(folder{how})"
                f".save_pretrained(folder, safe_serialization=True){old}"
            )
    if gguf := sorted(name for name in names if name.endswith(".gguf")):
        raise ModelError(f"{folder}: {gguf[0]} is a language model of llama.cpp, which writes text")


def tokenizer_of(folder: Path) -> Path | None:
    """`tokenizer.json`, else a file that transformers makes one of; None where there is neither."""
    names = ("tokenizer.json", *TOKENIZER_SOURCES)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    return found or next(iter(sorted(folder.glob("*.model"))), None)


# ---------------------------------------------------------------- what it is


_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "architectures": ((list, str), "a list of names"),
    "id2label": ((dict,), "a map of numbers to names"),
    "label2id": ((dict,), "a map of names to numbers"),
    "num_labels": ((int,), "a whole number"),
    "problem_type": ((str,), f"one of {', '.join(_PROBLEMS)}"),
    "model_type": ((str,), "a name"),
    **dict.fromkeys((*_LENGTHS, "pad_token_id"), ((int,), "a whole number")),
}


def _check_types(path: Path, config: Mapping[str, Any]) -> None:
    for name, (kinds, expected) in _KINDS.items():
        value = config.get(name)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise ModelError(f"{path}: {name}: expected {expected}, not {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__} of {len(text)} characters"


def _architectures(config: Mapping[str, Any]) -> list[str]:
    given = config.get("architectures") or []
    return [given] if isinstance(given, str) else [str(one) for one in given]


def _check_architecture(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Any], graphs: Mapping[str, Path]
) -> None:
    names = _architectures(config)
    if any(name.endswith(CLASSIFIER) for name in names):
        return _check_kind_of_data(folder, names)
    if names:
        raise OtherModelError(
            f"{folder}: is a {names[0]} (config.json), which {_head(names[0])}; of text models a "
            f"...{CLASSIFIER} runs{_or_tensors(graphs)}"
        )
    found = _head_of(weights)
    if found is None:
        return None
    raise OtherModelError(
        f"{folder}: config.json has no 'architectures', and its weights are those of {found}; "
        f'put "architectures": ["...{CLASSIFIER}"] there if it is one, or \'task: '
        f"text_classification' into a model.yaml{_or_tensors(graphs)}"
    )


def _head(name: str) -> str:
    ends = (what for end, what in _HEADS.items() if name.endswith(end))
    return next(ends, "answers in a way of its own")


def _or_tensors(graphs: Mapping[str, Path]) -> str:
    """How a model runs with its tensors as they are, where there is such a task."""
    if "tensors" not in plugins.names("tasks"):
        return ""
    if "onnx" in graphs or "openvino" in graphs:
        return "; its graph runs as it is with 'task: tensors' in a model.yaml"
    return "; exported to ONNX it runs as it is with 'task: tensors' in a model.yaml"


def _head_of(weights: Mapping[str, Any]) -> str | None:
    """What has such weights, in words; None for a classifier of texts, or where nothing tells."""
    if not weights:
        return None
    # One layer of this name labels texts where there is a pooler for it, else each token.
    if any(name.startswith(("classifier.", "score.")) for name in weights) and not any(
        name.startswith(tuple(_WEIGHTS_OF)) for name in weights
    ):
        pooled = any(".pooler." in name for name in weights)
        return None if pooled else "a classifier of texts or of each token: nothing tells which"
    for start, kind in _WEIGHTS_OF.items():
        if any(name.startswith(start) for name in weights):
            if kind is None:
                return None
            return f"a model that {_HEADS[kind]}" if kind in _HEADS else kind
    return "an encoder without a head"


def _check_kind_of_data(folder: Path, names: list[str]) -> None:
    """Classifiers of sounds have the same ending as those of texts."""
    if tokenizer_of(folder) is None:
        processor = read_json(folder / "preprocessor_config.json")
        kind = "sounds" if "sampling_rate" in processor else "pictures"
        if processor:
            raise OtherModelError(
                f"{folder}: a {names[0]} that takes {kind} (preprocessor_config.json), not texts"
            )


def _check_pairs(folder: Path, config: Mapping[str, Any]) -> None:
    """A cross-encoder of sentence-transformers says so in `config.json`."""
    if "sentence_transformers" in config or "sbert_ce_default_activation_function" in config:
        raise OtherModelError(
            f"{folder}: a cross-encoder of sentence-transformers (config.json), which scores pairs "
            "of texts; if it takes one text, put 'task: text_regression' into a model.yaml"
        )


def _answer(
    folder: Path, config: Mapping[str, Any], labels: tuple[str, ...], yaml: ModelYaml
) -> tuple[str, bool, tuple[str, str, str]]:
    """The task, whether a text may have several labels, and what tells so."""
    problem = config.get("problem_type")
    path = folder / "config.json"
    if problem is not None and problem not in _PROBLEMS:
        raise ModelError(f"{path}: problem_type: expected one of {', '.join(_PROBLEMS)}, not "
                         f"{_shown(problem)}")  # fmt: skip
    several = problem == "multi_label_classification"
    if yaml.activation in ("sigmoid", "softmax"):
        several = yaml.activation == "sigmoid" and len(labels) > 1
    if yaml.multi_label is not None:
        several = yaml.multi_label
    if yaml.task in TASKS:
        return yaml.task, several, ("answer", yaml.task.replace("_", " "), "task of model.yaml")
    numbers = "a number" if len(labels) == 1 else f"{len(labels)} numbers"
    if problem == "regression":
        return "text_regression", False, ("answer", numbers, "problem_type of config.json")
    if len(labels) == 1 and problem is None:
        # As transformers trains it: https://huggingface.co/docs/transformers/main_classes/output
        return "text_regression", False, ("answer", numbers, "config.json has one label")
    if len(labels) == 1 and not several and yaml.activation is None:
        raise ModelError(
            f"{path}: one label and problem_type single_label_classification contradict each "
            "other; put 'task: text_regression' for its number, or 'activation: sigmoid' for a "
            "probability, into a model.yaml"
        )
    kind = "any of the labels" if several else "one of the labels"
    source = "problem_type of config.json" if problem else f"config.json has {len(labels)} labels"
    for key in ("activation", "multi_label"):
        if getattr(yaml, key) is not None:
            source = f"{key} of model.yaml"
    return "text_classification", several, ("answer", kind, source)


# ---------------------------------------------------------------- labels


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    path = folder / "config.json"
    named, count = config.get("id2label"), config.get("num_labels")
    if not named:
        # transformers leaves id2label out when the labels have no names of their own.
        number = 2 if count is None else count
        if not 0 < number < 1_000_000:
            raise ModelError(f"{path}: num_labels: {number} is no number of labels")
        return tuple(f"LABEL_{i}" for i in range(number))
    try:
        by_number = {int(key): _name(value) for key, value in named.items()}
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: id2label is not a map of numbers to names") from error
    mend = "mend it, or put 'labels: [...]' into a model.yaml"
    if sorted(by_number) != list(range(len(named))):
        numbers = ", ".join(map(str, sorted(by_number)[:8]))
        raise ModelError(
            f"{path}: id2label numbers its {len(named)} labels {numbers}, not 0 to "
            f"{len(named) - 1}; {mend}"
        )
    if count is not None and count != len(named):
        raise ModelError(
            f"{path}: num_labels is {count}, but id2label has {len(named)} labels; {mend}"
        )
    labels = tuple(by_number[number] for number in range(len(named)))
    if twice := next((one for one in labels if labels.count(one) > 1), None):
        raise ModelError(f"{path}: id2label names two labels {twice!r}; {mend}")
    if "" in labels:
        raise ModelError(f"{path}: id2label has a label without a name; {mend}")
    for name, number in (config.get("label2id") or {}).items():
        if name in labels and str(labels.index(name)) != str(number):
            raise ModelError(
                f"{path}: by id2label {name!r} is number {labels.index(name)}, by label2id "
                f"{_shown(number)}; mend one, or put 'labels: [...]' into a model.yaml"
            )
    return labels


def _name(value: object) -> str:
    if isinstance(value, list | dict) or value is None:
        raise TypeError
    return str(value)


def _check_head(
    folder: Path, weights: Mapping[str, Any], labels: tuple[str, ...], source: str
) -> None:
    """As many labels as the last layer has rows, as far as its name is known."""
    name = next((one for one in _LAST if weights.get(one)), "")
    if name and weights[name][0] != len(labels):
        raise ModelError(
            f"{folder}: {source} names {len(labels)} labels, but {name} is for "
            f"{weights[name][0]}; mend {'id2label' if source == 'config.json' else 'labels'} there"
        )


# ---------------------------------------------------------------- weights


def _weights(folder: Path) -> dict[str, list[int]]:
    """The shapes of a checkpoint's weights by name, from the headers of its files."""
    found: dict[str, list[int]] = {}
    for path in graph_files("checkpoint", folder):
        if path.suffix == ".safetensors":
            found |= _shapes(path)
    return found


def _shapes(path: Path) -> dict[str, list[int]]:
    """https://huggingface.co/docs/safetensors: a length, then that much JSON, then the numbers."""
    broken = f"{path}: not safetensors, or cut off; fetch it again"
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 0 < size <= min(_HEADER_LIMIT, path.stat().st_size - 8):
                raise ModelError(broken)
            header = json.loads(file.read(size))
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        end = max((one["data_offsets"][1] for one in tensors.values()), default=0)
        if path.stat().st_size < 8 + size + end:
            raise ModelError(broken)
        return {name: list(one["shape"]) for name, one in tensors.items()}
    except (
        OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError,
        MemoryError,
    ) as error:  # fmt: skip
        raise ModelError(broken) from error


# ---------------------------------------------------------------- tokens


def _of(config: Mapping[str, Any], name: str) -> Any:
    """A key, of a model with several parts that of its text part."""
    part = config.get("text_config")
    return config.get(name, part.get(name) if isinstance(part, dict) else None)


def _max_length(folder: Path, config: Mapping[str, Any], tokens: Mapping[str, Any]) -> int:
    """The most tokens of a text: as many as it has positions, and no more than its author says."""
    counts = (_of(config, name) for name in _LENGTHS)
    longest = next((one for one in counts if isinstance(one, int) and one > 0), None)
    if longest is not None and config.get("model_type") in _OFFSET_POSITIONS:
        pad = 1 if config.get("model_type") == "mpnet" else config.get("pad_token_id", 1)
        longest -= int(1 if pad is None else pad) + 1
    limit = tokens.get("model_max_length")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: model_max_length: expected a number, not "
            f"{_shown(limit)}"
        )
    if limit is not None and 0 < limit < 1e6:  # "no limit" is written as 1e30
        longest = min(longest or int(limit), int(limit))
    return max(512 if longest is None else longest, 1)


def _pad_side(folder: Path, tokens: Mapping[str, Any]) -> str:
    side = tokens.get("padding_side", "right")
    if side not in ("left", "right"):
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: padding_side: expected left or right, not "
            f"{_shown(side)}"
        )
    return str(side)


def _pad_id(config: Mapping[str, Any], tokens: Mapping[str, Any], tokenizer: Path) -> int:
    number = _of(config, "pad_token_id")
    if isinstance(number, int) and number >= 0:
        return number
    token = tokens.get("pad_token")
    content = token.get("content") if isinstance(token, dict) else token
    added = read_json(tokenizer).get("added_tokens")
    for one in added if isinstance(added, list) else ():
        if isinstance(one, dict) and one.get("content") == content and content is not None:
            held = one.get("id")
            if not isinstance(held, int) or held < 0:
                raise ModelError(f"{tokenizer}: the token {content!r} has no number as its id")
            return held
    return 0
