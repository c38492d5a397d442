"""The article's own loop: pandas chunks of 1,000 through transformers' sentiment pipeline.

Without `--batch-size` the pipeline keeps its default, as in the article.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import FileScorer, main, module, parser

CHUNK_ROWS = 1000


def load(model: Path, batch_size: int | None) -> FileScorer:
    pandas: Any = module("pandas")
    classifier = module("transformers").pipeline("sentiment-analysis", model=str(model))
    options: dict[str, Any] = {"truncation": True}
    if batch_size is not None:
        options["batch_size"] = batch_size

    def run(source: Path, target: Path) -> int:
        rows = 0
        parts = []
        for chunk in pandas.read_csv(source, chunksize=CHUNK_ROWS):
            results = classifier(chunk["review_text"].tolist(), **options)
            chunk["label"] = [result["label"] for result in results]
            chunk["score"] = [result["score"] for result in results]
            parts.append(chunk)
            rows += len(chunk)
        pandas.concat(parts).to_csv(target, index=False)
        return rows

    return run


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--batch-size", type=int)
    arguments = command.parse_args()
    main(
        arguments,
        lambda: load(arguments.model, arguments.batch_size),
        ("transformers", "torch", "pandas"),
    )
