"""The loop a careful engineer writes by hand: sort by length, batch by token budget, ONNX Runtime.

`--int8` quantises as ONNX Runtime's documentation says for transformers on CPU: its transformer
optimizer first (attention fused), then dynamic quantisation with signed 8-bit weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import LABELS, MAX_TOKENS, FileScorer, Scored, main, module, parser, token_batches
from common import whole_file as scoring_whole_file

HEADS, HIDDEN = 12, 768


def quantise(source: Path, cache: Path) -> Path:
    target = cache / "ort_int8.onnx"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fused = cache / "ort_fused.onnx"
        optimizer: Any = module("onnxruntime.transformers.optimizer")
        model = optimizer.optimize_model(
            str(source), model_type="bert", num_heads=HEADS, hidden_size=HIDDEN, opt_level=0
        )
        model.save_model_to_file(str(fused))
        quantization: Any = module("onnxruntime.quantization")
        quantization.quantize_dynamic(
            fused,
            target,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            extra_options={"DefaultTensorType": 1},  # float: fused nodes hide their types
        )
        fused.unlink()
    return target


def load(onnx_file: Path, tokenizer_file: Path, budget: int) -> FileScorer:
    numpy: Any = module("numpy")
    ort: Any = module("onnxruntime")
    tokenizer = module("tokenizers").Tokenizer.from_file(str(tokenizer_file))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # every batch has another shape
    session = ort.InferenceSession(onnx_file, options, providers=["CPUExecutionProvider"])

    def score(texts: list[str]) -> list[Scored]:
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        scored: list[Scored] = [("", 0.0)] * len(texts)
        for rows in token_batches([len(ids) for ids in tokens], budget):
            width = max(len(tokens[row]) for row in rows)
            input_ids = numpy.zeros((len(rows), width), numpy.int64)
            mask = numpy.zeros_like(input_ids)
            for line, row in enumerate(rows):
                input_ids[line, : len(tokens[row])] = tokens[row]
                mask[line, : len(tokens[row])] = 1
            logits = session.run(None, {"input_ids": input_ids, "attention_mask": mask})[0]
            powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
            shares = powers / powers.sum(axis=1, keepdims=True)
            for row, share in zip(rows, shares, strict=True):
                best = int(share.argmax())
                scored[row] = (LABELS[best], float(share[best]))
        return scored

    return scoring_whole_file(score)


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--int8", action="store_true")
    command.add_argument("--token-budget", type=int, default=1024)
    arguments = command.parse_args()
    onnx = arguments.model / "onnx" / "model.onnx"
    if arguments.int8:
        onnx = quantise(onnx, arguments.cache)
    main(
        arguments,
        lambda: load(onnx, arguments.model / "tokenizer.json", arguments.token_budget),
        ("onnxruntime", "tokenizers", "numpy"),
    )
