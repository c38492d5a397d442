"""`mlopsdeploy models quantise`: int8 with a proof on your own rows, into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.columns import Columns
from mlopsdeploy.compile import quantize
from mlopsdeploy.config import BatchSettings
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model import load_model
from mlopsdeploy.models import find_model
from mlopsdeploy.models.cache import cache_folder
from mlopsdeploy.models_command.data import read_rows
from mlopsdeploy.models_command.folder import check_free, write_folder
from mlopsdeploy.models_command.tables import facts, size

READ_ROWS = 40_000  # of the data; what is calibrated on is drawn from among them


def quantise_model(
    reference: str,
    *,
    data: str,
    text_column: str | None = None,
    max_flips: float = quantize.MAX_FLIPS,
    output: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """A text classifier in int8, as a folder that `--model` takes.

    Args:
        reference: see `find_model`.
        data: rows as they will be scored; some calibrate, others prove.
        text_column: see `mlopsdeploy batch`.
        max_flips: the largest share of labels that may differ from float32's, from 0 to 1.
        output: the folder; by default `NAME-int8` in the current one.
        say: told, in one line each, what takes long.

    Returns:
        `model`, `output`, `bytes`, `float_bytes`, `digest`, `proof`: as the model is loaded from
        the folder; `calibration`: the proof of `compile.quantize`, where close calls were
        computed again by the float model, which the folder does not hold.

    Raises:
        ConfigError: the model's task or format has no int8 here, or the output is there.
        InputError: the data can't be read or are too few.
        ModelError: more labels differ than may.
    """
    files = find_model(reference)
    _check(files.name, files.task, files.precision, files.graphs)
    folder = Path(output or f"{files.name.rpartition('/')[2]}-int8")
    check_free(folder)
    floating = load_model(reference, runtime="openvino", precision="float32", say=say)
    rows = read_rows(data, floating, text_column=text_column, limit=READ_ROWS).columns
    made = load_model(
        reference,
        runtime="openvino",
        precision="int8",
        calibrate=lambda: rows,
        max_flips=max_flips,
        say=say,
    )
    shaping = {"threshold": files.threshold, "long_text": BatchSettings().long_text}
    place = quantize.place(cache_folder(), files.digest, shaping)
    found = quantize.find(place)
    assert found is not None
    _, held_out = quantize.split(floating.task, rows)
    expected = floating.predict(held_out)

    def document(proof: Mapping[str, Any]) -> dict[str, Any]:
        source = {"name": files.name, "version": files.version, "digest": files.digest}
        return {"precision": "int8", "made_from": source, "proof": dict(proof)}

    proof = {**_proof(expected, found.file, held_out, files, document), **_origin(made.proof)}
    if proof["flip_share"] > max_flips:
        raise ModelError(
            f"{files.name}: int8 is refused, {proof['label_flips']} of {proof['rows']} labels "
            f"differ from float32's without the float model for close calls; batch and serve "
            f"have it with --precision int8, or raise --max-flips"
        )
    written = write_folder(folder, files, "openvino", found.file, document(proof))
    return {
        "model": files.name,
        "output": str(folder),
        "files": [path.name for path in written],
        "bytes": sum(path.stat().st_size for path in written if path.suffix in (".xml", ".bin")),
        "float_bytes": _float_bytes(files.graphs),
        "digest": find_model(str(folder)).digest,
        "max_flips": max_flips,
        "proof": proof,
        "calibration": dict(made.proof),
    }


def _check(name: str, task: str, precision: str | None, graphs: Mapping[str, Path]) -> None:
    """Say in one line where int8 does not apply."""
    if precision == "int8":
        raise ConfigError(f"{name}: is int8 as it is (its model.yaml says so, with a proof)")
    if task == "text_classification":
        return
    if "tflite" in graphs and task != "tabular_classification":
        raise ConfigError(
            f"{name}: models of pictures are quantised when they are made, with pictures to "
            "calibrate on (ai-edge-quantizer; recipes/build_detector.py shows how); bring the "
            "int8 .tflite"
        )
    raise ConfigError(
        f"{name}: int8 is for text classifiers; a table of numbers is scored at hundreds of "
        "thousands of rows a second in float32, so nothing would be gained"
    )


def _proof(
    expected: Columns,
    graph: Path,
    held_out: Columns,
    files: Any,
    document: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """What the folder will answer, asked of one that is just like it."""
    import tempfile

    with tempfile.TemporaryDirectory() as apart:
        trial = Path(apart) / "model"
        write_folder(trial, files, "openvino", graph, document({}))
        model = load_model(str(trial), runtime="openvino")
        return quantize.compare(expected, model.predict(held_out))


def _origin(proof: Mapping[str, Any]) -> dict[str, Any]:
    names = ("calibration_rows", "made", "nncf", "openvino")
    return {name: proof[name] for name in names if name in proof}


def _float_bytes(graphs: Mapping[str, Path]) -> int:
    graph = graphs.get("onnx") or graphs.get("openvino")
    if graph is None:
        return sum(path.stat().st_size for path in graphs["checkpoint"].glob("model*.safetensors"))
    weights = graph.with_suffix(".bin")
    return graph.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)


def show_quantised(found: dict[str, Any], console: Console) -> None:
    """What `quantise_model` did, as people read it."""
    proof = found["proof"]
    flips = (
        f"{proof['label_flips']} of {proof['rows']} labels differ from float32's "
        f"({proof['flip_share']:.2%}; {found['max_flips']:.2%} may)"
    )
    scores = (
        f"differ by {proof['mean_change']:.2g} on average, {proof['largest_change']:.2g} at most"
    )
    console.print(
        facts(
            [
                ("model", found["model"]),
                ("calibrated on", f"{proof['calibration_rows']} rows, proven on others"),
                ("labels", flips),
                ("scores", scores),
                ("size", f"{size(found['bytes'])}; it was {size(found['float_bytes'])}"),
                ("digest", found["digest"]),
                ("written to", f"{found['output']}/ ({', '.join(found['files'])})"),
            ]
        ),
        highlight=False,
    )
