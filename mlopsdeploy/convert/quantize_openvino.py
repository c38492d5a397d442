"""The child of `compile.quantize`: `python quantize_openvino.py GRAPH BATCHES FOLDER`.

Writes FOLDER/model.xml and model.bin: the graph in int8, its scales from the BATCHES.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mlopsdeploy.runtimes import openvino_graph

# Few channels of a transformer's activations are far larger than the rest. SmoothQuant
# (arXiv:2211.10438) moves that into the weights, and this much of it flips fewest labels.
SMOOTH = 0.95


def quantize(graph: Path, batches: Path, folder: Path) -> None:
    """Quantise weights and activations, where that is known to do no harm."""
    import nncf
    import openvino as ov
    from openvino.passes import ConstantFolding, Manager

    model = ov.Core().read_model(str(graph))
    # Weights that are stored in int8 become plain ones, else SmoothQuant passes them by.
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    # Before, since the rewrite does not look through quantised values.
    openvino_graph.keep_first_token(model)
    names = [port.get_any_name() for port in model.inputs]
    with np.load(batches) as saved:
        count = len({key.partition(".")[0] for key in saved.files})
        given = [{name: saved[f"{place}.{name}"] for name in names} for place in range(count)]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(given),
        # Activations that have both signs get an offset only if they need it.
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        subset_size=count,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # Half of a weight's range, as sums of two products overflow on CPUs without VNNI: there
            # a model that was proven elsewhere would give other labels.
            overflow_fix=nncf.OverflowFix.ENABLE,
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH),
        ),
    )
    ov.save_model(quantized, str(folder / "model.xml"), compress_to_fp16=False)


if __name__ == "__main__":
    quantize(*map(Path, sys.argv[1:4]))
