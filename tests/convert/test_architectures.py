"""Each architecture answers as transformers does to a text alone, whatever stands beside it."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mlopsdeploy.columns import objects
from mlopsdeploy.convert.checkpoint import NotExportedError
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.folder import proof_in
from mlopsdeploy.runtimes.torch import Torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(56))]
TEXTS = [" ".join(f"w{(7 * i + j) % 56}" for j in range(n)) for i, n in enumerate((1, 2, 9, 3, 30))]
SIZES = {"vocab_size": 60, "num_labels": 3, "pad_token_id": 0}
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
           "intermediate_size": 64, "max_position_embeddings": 64}  # fmt: skip
SHAPES = {
    "ConvBert": {**ENCODER, "embedding_size": 32},
    "FNet": {name: size for name, size in ENCODER.items() if name != "num_attention_heads"},
    "BigBird": {**ENCODER, "block_size": 4, "num_random_blocks": 1},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
           "eos_token_id": 3, "decoder_start_token_id": 0},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "Nystromformer": {**ENCODER, "segment_means_seq_len": 64, "num_landmarks": 16},
}  # fmt: skip
TEMPLATES = {"GPT2": "$A", "T5": "$A [SEP]", "XLNet": "$A [SEP] [CLS]:2"}


def make(folder, kind, *, tokens=(), **config):
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    made = getattr(transformers, f"{kind}Config")(**{**SIZES, **SHAPES[kind], **config})
    model = transformers.AutoModelForSequenceClassification.from_config(made).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.25)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=TEMPLATES.get(kind, "[CLS] $A [SEP]"),
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 64, **dict(tokens)}), "utf-8"
    )
    return folder


def expected(folder, texts=TEXTS):
    """Probabilities by transformers, each text alone, by a model that has seen no other."""
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = []
    for text in texts:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        encoding = words.encode(text)
        given = {"input_ids": torch.tensor([encoding.ids])}
        if any(encoding.type_ids):
            given["token_type_ids"] = torch.tensor([encoding.type_ids])
        with torch.inference_mode():
            found.append(model(**given).logits.softmax(-1)[0].numpy())
    return np.stack(found)


def scores(folder, runtime, texts=TEXTS, log=lambda _: None):
    model = load_model(str(folder), runtime=runtime, precision="float32", threads=1, log=log)
    return model.predict_columns({"text": objects(texts)})["scores"], model


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("ConvBert", {}),  # whose convolution reaches into padding
        ("GPT2", {"tokens": {"padding_side": "left"}}),  # whose positions padding would move
        ("GPT2", {"pad_token_id": None}),  # whose last token counts
        ("T5", {}),
        ("XLNet", {}),  # whose [CLS] has a type of its own
    ],
)
def test_on_every_runtime(kind, how, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = make(tmp_path / "model", kind, **how)
    texts = [*TEXTS, "w1 [SEP] w2", "w3 w4 w5"] if kind == "T5" else TEXTS
    right = expected(folder, texts)
    for runtime in ("openvino", "onnxruntime", "torch"):
        got, _ = scores(folder, runtime, texts)
        np.testing.assert_allclose(got, right, atol=1e-5, err_msg=runtime)
    (proof,) = map(proof_in, (tmp_path / "cache" / "onnx").iterdir())
    assert (proof["lengths"][0], proof["lengths"][-1]) == (2, 64)
    assert proof["batches"][:2] == [1, 2]
    assert proof["padded"] == (kind == "T5")


@pytest.mark.parametrize("kind", ["FNet", "BigBird"])
def test_what_no_graph_answers_alike_runs_on_torch(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = make(tmp_path / "model", kind)
    texts = [*TEXTS, " ".join(["w5", "w9"] * 30)]  # BigBird attends to all of a short one
    said = []
    got, model = scores(folder, "auto", texts, said.append)
    assert model.runtime.name == "torch"
    assert "model runs on torch, as it can't be exported" in said[-1]
    np.testing.assert_allclose(got, expected(folder, texts), atol=1e-5)
    again = []
    scores(folder, "auto", texts, again.append)
    assert [line.partition(" ")[0] for line in again] == ["model"], "it isn't tried once more"
    with pytest.raises(NotExportedError, match="use --runtime torch"):
        load_model(str(folder), runtime="onnxruntime", threads=1)


def test_what_transformers_itself_can_not_compute(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = make(tmp_path / "model", "Nystromformer")
    for runtime in ("torch", "onnxruntime"):
        with pytest.raises(ModelError, match="transformers itself can't compute a text of 6"):
            load_model(str(folder), runtime=runtime, threads=1)


def test_token_types_where_they_are_more_tokens(tmp_path):
    folder = make(tmp_path / "model", "GPT2")
    assert [field.name for field in Torch(folder).inputs] == ["input_ids", "attention_mask"]
    asked = shutil.copytree(folder, tmp_path / "asked")
    config = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    (asked / "tokenizer_config.json").write_text(json.dumps(config))
    assert "token_type_ids" in [field.name for field in Torch(asked).inputs]


def test_a_model_that_draws_at_random(tmp_path, monkeypatch):
    folder = make(tmp_path / "model", "GPT2")
    kind = transformers.GPT2ForSequenceClassification
    forward = kind.forward

    def drawing(self, *given, **named):
        found = forward(self, *given, **named)
        found.logits = found.logits + torch.randn_like(found.logits)
        return found

    drawing.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(kind, "forward", drawing)
    with pytest.raises(ModelError, match="draws at random"):
        Torch(folder)
