"""Detectors and classifiers of pictures, with files beside them."""

import shutil

import pytest

from mlopsdeploy.core.loading import load_model

# What nothing in these files tells.
UNTOLD = {
    **dict.fromkeys(("best_class", "corners", "heads", "masks"), "input: {mean: 0, std: 255}"),
    "logits": "activation: softmax",
    "with_background": "activation: none",
}


@pytest.fixture
def load(tflite_models, tmp_path, request):
    """`load("yolo_v8", labels="a\\nb", said="threshold: 0.2")`: with files beside the model.

    What nothing else tells of a model stands in its YAML too. The labels go into the file that the
    test's module calls LABEL_FILE.
    """

    def make(name, *, labels=None, said=None, **how):
        path = tmp_path / f"{name}.tflite"
        shutil.copy(tflite_models / path.name, path)
        if labels:
            (tmp_path / request.module.LABEL_FILE).write_text(labels)
        told = "\n".join(dict.fromkeys(filter(None, (said, UNTOLD.get(name)))))
        if told:
            path.with_suffix(".yaml").write_text(told)
        return load_model(str(path), threads=1, **how)

    return make
