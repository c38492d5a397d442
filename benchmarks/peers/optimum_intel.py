"""optimum-intel: OpenVINO with post-training static int8 quantisation.

Its documentation puts the quantised model into a transformers pipeline: that is the default here.
`--sorted` adds what it leaves to its user: rows sorted by length, batched by token budget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import (
    MAX_TOKENS,
    FileScorer,
    Scored,
    main,
    module,
    parser,
    read_reviews,
    token_batches,
    whole_file,
)

CALIBRATION_ROWS = 128


def quantise(model: Path, calibration: Path, cache: Path) -> Path:
    target = cache / "optimum_int8"
    if (target / "openvino_model.bin").exists():
        return target
    intel: Any = module("optimum.intel")
    transformers: Any = module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    texts = read_reviews(calibration)[1][:CALIBRATION_ROWS]
    dataset = (
        module("datasets")
        .Dataset.from_dict({"text": texts})
        .map(
            lambda row: tokenizer(row["text"], truncation=True, max_length=MAX_TOKENS),
            remove_columns=["text"],
        )
    )
    float_model = intel.OVModelForSequenceClassification.from_pretrained(model, export=True)
    quantizer = intel.OVQuantizer.from_pretrained(float_model)
    quantizer.quantize(
        calibration_dataset=dataset,
        ov_config=intel.OVConfig(quantization_config=intel.OVQuantizationConfig()),
        save_directory=target,
    )
    tokenizer.save_pretrained(target)
    return target


def load(folder: Path, sort: bool, budget: int) -> FileScorer:
    intel: Any = module("optimum.intel")
    transformers: Any = module("transformers")
    model = intel.OVModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not sort:
        classifier = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)

        def score(texts: list[str]) -> list[Scored]:
            results = classifier(texts, truncation=True)
            return [(result["label"], result["score"]) for result in results]

        return whole_file(score)

    torch: Any = module("torch")

    def score_sorted(texts: list[str]) -> list[Scored]:
        tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)
        scored: list[Scored] = [("", 0.0)] * len(texts)
        for rows in token_batches([len(ids) for ids in tokens["input_ids"]], budget):
            batch = tokenizer.pad(
                {name: [values[row] for row in rows] for name, values in tokens.items()},
                return_tensors="pt",
            )
            shares = torch.softmax(model(**batch).logits, dim=1)
            for row, share in zip(rows, shares, strict=True):
                best = int(share.argmax())
                scored[row] = (model.config.id2label[best], float(share[best]))
        return scored

    return whole_file(score_sorted)


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--sorted", action="store_true")
    command.add_argument("--token-budget", type=int, default=1024)
    arguments = command.parse_args()
    int8 = quantise(arguments.model, arguments.input, arguments.cache)
    main(
        arguments,
        lambda: load(int8, arguments.sorted, arguments.token_budget),
        ("optimum-intel", "openvino", "transformers"),
    )
