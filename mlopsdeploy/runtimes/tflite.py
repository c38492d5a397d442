"""tflite-runtime, the elder of LiteRT: where no ai-edge-litert is built, as on 32-bit Arm."""

from __future__ import annotations

import numpy as np

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.runtimes.tflite_file import TFLiteFile

# Its last release, 2.14, was built for NumPy 1. With NumPy 2 this very import seems to succeed,
# after a page of errors, and every Interpreter then raises SystemError.
if int(np.__version__.partition(".")[0]) >= 2:
    raise ConfigError(
        f"runtime 'tflite' needs numpy < 2, and here is numpy {np.__version__}: pip install "
        "'mlopsdeploy[edge-tflite]' in an environment of its own, or use the runtime 'litert'"
    )

from tflite_runtime.interpreter import Interpreter


class TFLite(TFLiteFile):
    """A `.tflite` file on tflite-runtime."""

    package = "tflite-runtime"
    interpreter = Interpreter
