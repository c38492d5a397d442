"""`mlopsdeploy models quantise`: int8 with a proof on your own rows, into a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.convert import checkpoint, quantize
from mlopsdeploy.convert.to_openvino import to_openvino
from mlopsdeploy.core.console import facts
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.digest import parts_of
from mlopsdeploy.model_files.folder import origin, weight_files, write_folder
from mlopsdeploy.models.convert import checked_output, find_one
from mlopsdeploy.models.data import read_rows
from mlopsdeploy.models.tables import bytes_of, size
from mlopsdeploy.settings import BatchSettings

READ_ROWS = 40_000  # of the data; what is calibrated on is drawn from among them


def quantise_model(
    reference: str,
    *,
    data: str,
    text_column: str | None = None,
    max_flips: float = quantize.MAX_FLIPS,
    output: str | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """A text classifier in int8, as a folder that `--model` takes.

    Args:
        reference: see `find_model`.
        data: rows as they will be scored; some calibrate, others prove.
        text_column: see `mlopsdeploy batch`.
        max_flips: the largest share of labels that may differ from float32's, from 0 to 1.
        output: the folder; by default `NAME-int8` in the current one.
        overwrite: replace a folder that is there, unless it holds the model.
        log: called with a line about each slow step.

    Returns:
        `model`, `output`, `files`, `bytes` of the int8 graph, `float32_bytes` of the float graph
        that goes with it to decide close calls, `float_bytes` of the model it was made from,
        `digest`, `max_flips`, `proof`: of the folder as it is loaded.

    Raises:
        ConfigError: the model's task or format has no int8 here, or the output is there.
        InputError: the data can't be read or are too few.
        ModelError: more labels differ than may.
    """
    files = find_one(reference, "quantise")
    _check(files, reference)
    folder = checked_output(output, files, "int8", reference, overwrite=overwrite)
    floating = load_model(reference, runtime="openvino", precision="float32", log=log)
    rows = read_rows(data, floating, text_column=text_column, limit=READ_ROWS).columns
    made = load_model(
        reference, runtime="openvino", precision="int8", calibrate=lambda: rows,
        max_flips=max_flips, log=log,
    )  # fmt: skip
    shaping = {"threshold": files.threshold, "long_text": BatchSettings().long_text}
    place = quantize.place(files.digest, shaping)
    found = quantize.find(place)
    assert found is not None
    _, held_out = quantize.split(floating.task, rows)
    expected = floating.predict_columns(held_out)

    with tempfile.TemporaryDirectory() as apart:
        # It computes in float32; its weights in 16 bits take half of the space, and what that
        # costs is in the proof.
        exact = to_openvino(_float_graph(files), Path(apart) / "float32.xml", half=True)

        def write(place: Path, proof: Mapping[str, Any]) -> list[Path]:
            keys = {"precision": "int8", "made_from": origin(files), "proof": dict(proof)}
            return write_folder(place, files, "openvino", found.file, keys, floating=exact)

        write(Path(apart) / "trial", {})
        trial = load_model(str(Path(apart) / "trial"), runtime="openvino")
        proof = quantize.compare(expected, trial.predict_columns(held_out))
        names = ("calibration_rows", "made", "nncf", "openvino")
        proof |= {name: made.proof[name] for name in names if name in made.proof}
        if proof["flip_share"] > max_flips:
            raise ModelError(
                f"{files.name}: int8 is refused, {proof['label_flips']} of {proof['rows']} labels "
                f"differ from float32's; {max_flips:.2%} may: raise --max-flips, or keep float32"
            )
        written = write(folder, proof)
    made_files = find_model(str(folder))
    assert made_files.float32 is not None
    return {
        "model": files.name,
        "output": str(folder),
        "files": [path.name for path in written],
        "bytes": bytes_of(parts_of(made_files.graphs["openvino"])),
        "float32_bytes": bytes_of(parts_of(made_files.float32)),
        "float_bytes": bytes_of(weight_files(replace(files, graphs=_first(files.graphs)))),
        "digest": made_files.digest,
        "max_flips": max_flips,
        "proof": proof,
    }


def _check(files: ModelFiles, reference: str) -> None:
    """Say in one line where int8 does not apply."""
    name = files.name
    if files.precision == "int8":
        raise ConfigError(f"{name}: is int8 as it is (its model.yaml says so, with a proof)")
    if files.task == "text_classification":
        return
    data = load_model(reference, threads=1).task.data
    if data == "text":
        raise ConfigError(
            f"{name}: int8 is for text classifiers: its proof counts labels, and a "
            f"{files.task} gives none"
        )
    if data == "image":
        raise ConfigError(
            f"{name}: models of pictures are quantised when they are made, with pictures to "
            "calibrate on (ai-edge-quantizer; recipes/build_detector.py shows how); bring the "
            "int8 .tflite"
        )
    raise ConfigError(
        f"{name}: int8 is for text classifiers; a table of numbers is scored at hundreds of "
        "thousands of rows a second in float32, so nothing would be gained"
    )


def _float_graph(files: ModelFiles) -> Path:
    """What OpenVINO runs of the float model."""
    form, graph = next(iter(_first(files.graphs).items()))
    if form == "checkpoint":
        return checkpoint.to_onnx(graph, files.weights, files.max_length)
    return graph


def _first(graphs: Mapping[str, Path]) -> dict[str, Path]:
    """One of several forms of the same weights."""
    form = next(form for form in ("onnx", "openvino", "checkpoint") if form in graphs)
    return {form: graphs[form]}


def show_quantised(found: dict[str, Any], console: Console) -> None:
    """What `quantise_model` did, as people read it."""
    proof = found["proof"]
    flips = f"{proof['label_flips']} of {proof['rows']} labels differ from float32's "
    flips += f"({proof['flip_share']:.2%}; {found['max_flips']:.2%} may)"
    scores = (
        f"differ by {proof['mean_change']:.2g} on average, {proof['largest_change']:.2g} at most"
    )
    close = (
        f"are decided in float32, by a graph of {size(found['float32_bytes'])} that goes with it"
    )
    lines = [
        ("model", found["model"]),
        ("calibrated on", f"{proof['calibration_rows']} rows, proven on others"),
        ("labels", flips),
        ("scores", scores),
        ("size", f"{size(found['bytes'])}; it was {size(found['float_bytes'])}"),
        ("close calls", close),
        ("digest", found["digest"]),
        ("written to", f"{found['output']}/ ({', '.join(found['files'])})"),
    ]
    console.print(facts(lines))
