"""infinity-emb: its engine in this process, the whole file handed over in one call.

It queues the rows, sorts them by length and batches them itself. Engine `optimum` runs ONNX
Runtime; it finds the file in a local folder only as `./model.onnx`, so it gets such a folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

from common import FileScorer, main, module, parser, read_reviews, write_scores


def flat_folder(model: Path, cache: Path, int8: bool) -> Path:
    """A copy of the checkpoint with the ONNX file at its top, under the name the engine wants."""
    target = cache / ("infinity_int8" if int8 else "infinity")
    if not target.exists():
        ignore = shutil.ignore_patterns("onnx", "*.safetensors")
        shutil.copytree(model, target, ignore=ignore)
        if int8:
            shutil.copyfile(cache / "ort_int8.onnx", target / "model_quantized.onnx")
        else:
            shutil.copyfile(model / "onnx" / "model.onnx", target / "model.onnx")
    return target


def load(model: Path, engine_name: str) -> FileScorer:
    infinity: Any = module("infinity_emb")
    engine = infinity.AsyncEngineArray.from_args(
        [
            infinity.EngineArgs(
                model_name_or_path=str(model),
                engine=engine_name,
                device="cpu",
                bettertransformer=False,
                model_warmup=False,
            )
        ]
    )[0]

    async def score(texts: list[str]) -> list[list[dict[str, Any]]]:
        async with engine:
            results, _ = await engine.classify(sentences=texts)
            return list(results)

    def run(source: Path, target: Path) -> int:
        ids, texts = read_reviews(source)
        best = [max(row, key=lambda x: x["score"]) for row in asyncio.run(score(texts))]
        write_scores(target, ids, [(row["label"], row["score"]) for row in best])
        return len(ids)

    return run


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--engine", choices=("torch", "optimum"), default="torch")
    command.add_argument("--int8", action="store_true", help="the file that ort_loop.py made")
    arguments = command.parse_args()
    for option in ("input", "output", "model", "cache"):
        setattr(arguments, option, getattr(arguments, option).resolve())
    checkpoint = arguments.model
    if arguments.engine == "optimum":
        os.chdir(flat_folder(checkpoint, arguments.cache, arguments.int8))
        os.environ["HF_HUB_CACHE"] = str(arguments.cache / "hub")  # its optimised copy
        checkpoint = Path()
    main(
        arguments,
        lambda: load(checkpoint, arguments.engine),
        ("infinity-emb", "transformers", "torch"),
    )
