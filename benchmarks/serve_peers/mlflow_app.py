"""MLflow: a saved model behind `mlflow models serve`, one worker, in this same environment.

By default the model is a `pyfunc` around the LiteRT call (mlflow_model.py); with `--keras` it is
the Keras network as the TensorFlow flavour saves it, which calls `model.predict`. It is saved on
the first run.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from network import FEATURES, folder, host, port

HERE = Path(__file__).resolve().parent


def save(target: Path, keras: bool) -> None:
    import mlflow
    import numpy as np
    from mlflow.types import Schema, TensorSpec

    inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, FEATURES))])
    signature = mlflow.models.ModelSignature(inputs)
    if keras:
        import tensorflow as tf

        model = tf.keras.models.load_model(folder() / "network.keras")
        mlflow.tensorflow.save_model(model, str(target), signature=signature)
    else:
        script = str(HERE / "mlflow_model.py")
        mlflow.pyfunc.save_model(str(target), python_model=script, signature=signature)


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--keras", action="store_true")
    options = command.parse_args()
    saved = folder() / ("mlflow_keras" if options.keras else "mlflow")
    if not (saved / "MLmodel").exists():
        save(saved, options.keras)
    program = Path(sys.executable).with_name("mlflow")
    arguments = [program, "models", "serve", "--model-uri", saved, "--env-manager", "local"]
    arguments += ["--host", host(), "--port", str(port()), "--workers", "1"]
    os.execv(program, [str(argument) for argument in arguments])
