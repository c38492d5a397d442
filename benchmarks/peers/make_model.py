"""Write the checkpoints that the benchmark scores with, their weights random from a fixed seed.

    distilbert/  the shape of the article's model: 6 layers of 768, 12 heads, 3072, two labels
    tiny/        2 layers of 32, for the memory test only
    churn.onnx   20-64-32-1 on a table

The first two are Hugging Face folders: config.json, model.safetensors, the tokenizer,
onnx/model.onnx. Their heads are scaled and shifted so that rows get both labels and different
scores.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import LABELS, MAX_TOKENS, module, read_reviews

SEED = 20
CHURN_WIDTHS = (20, 64, 32, 1)
SAMPLE_ROWS, SAMPLE_TOKENS = 32, 128
# As sure of itself as a trained classifier: about 3 % of rows get a score between 0.38 and 0.62.
SPREAD = 9.0
TOKENIZER_CONFIG = {
    "tokenizer_class": "DistilBertTokenizer",
    "do_lower_case": True,
    "model_max_length": MAX_TOKENS,
    "model_input_names": ["input_ids", "attention_mask"],
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def models() -> dict[str, Any]:
    transformers: Any = module("transformers")
    labels = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: i for i, label in enumerate(LABELS)},
        "attn_implementation": "eager",
    }
    distilbert = transformers.DistilBertConfig(**labels)
    tiny = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        **labels,
    )
    return {
        "distilbert": transformers.DistilBertForSequenceClassification(distilbert),
        "tiny": transformers.BertForSequenceClassification(tiny),
    }


def spread_logits(torch: Any, model: Any, batch: Any) -> None:
    """Scale and shift the head: over `batch` each logit gets mean 0 and deviation `SPREAD`."""
    with torch.no_grad():
        logits = model(**batch).logits
        scale = SPREAD / logits.std(dim=0)
        model.classifier.weight.mul_(scale[:, None])
        model.classifier.bias.sub_(logits.mean(dim=0)).mul_(scale)


def sample(folder: Path, reviews: Path) -> Any:
    """The first rows of the benchmark's reviews as the folder's tokenizer reads them."""
    tokenizer = module("transformers").AutoTokenizer.from_pretrained(folder)
    texts = read_reviews(reviews)[1][:SAMPLE_ROWS]
    return tokenizer(
        texts, truncation=True, max_length=SAMPLE_TOKENS, padding=True, return_tensors="pt"
    )


def write_churn(target: Path) -> None:
    """Columns in, one probability out; the columns' names are in the file's metadata."""
    numpy: Any = module("numpy")
    onnx: Any = module("onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    random = numpy.random.default_rng(SEED)
    nodes, weights, value = [], [], "features"
    for layer, (wide, narrow) in enumerate(pairwise(CHURN_WIDTHS)):
        matrix = random.normal(size=(wide, narrow)) * (2 / wide) ** 0.5
        for name, array in (("w", matrix), ("b", numpy.zeros(narrow))):
            tensor = onnx.numpy_helper.from_array(array.astype(numpy.float32), f"{name}{layer}")
            weights.append(tensor)
        last = layer == len(CHURN_WIDTHS) - 2
        product, output = f"p{layer}", "probability" if last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [product]))
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [product], [output]))
        value = output
    graph = helper.make_graph(
        nodes,
        "churn",
        [helper.make_tensor_value_info("features", number, ["rows", CHURN_WIDTHS[0]])],
        [helper.make_tensor_value_info("probability", number, ["rows", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    names = [f"feature_{i:02d}" for i in range(CHURN_WIDTHS[0])]
    helper.set_model_props(model, {"feature_names": json.dumps(names)})
    onnx.checker.check_model(model)
    onnx.save(model, target)


def export(torch: Any, model: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    tokens = torch.randint(1000, model.config.vocab_size, (2, 16))
    dynamic = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        model,
        (),
        str(target),
        kwargs={"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": dynamic, "attention_mask": dynamic, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    command.add_argument("--reviews", type=Path, required=True, help="rows to fit the head on")
    command.add_argument("--output", type=Path, required=True)
    arguments = command.parse_args()
    library: Any = module("torch")
    library.manual_seed(SEED)
    for name, network in models().items():
        folder = arguments.output / name
        network.eval()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(arguments.tokenizer, folder / "tokenizer.json")
        tokenizer_config = json.dumps(TOKENIZER_CONFIG, indent=2)
        (folder / "tokenizer_config.json").write_text(tokenizer_config, encoding="utf-8")
        network.config.save_pretrained(folder)
        spread_logits(library, network, sample(folder, arguments.reviews))
        network.save_pretrained(folder)
        export(library, network, folder / "onnx" / "model.onnx")
    write_churn(arguments.output / "churn.onnx")
