"""LiteRT (once TensorFlow Lite): `.tflite` files, microseconds per call, no framework in memory."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter

from mlopsdeploy.runtimes.tflite_file import TFLiteFile


class LiteRT(TFLiteFile):
    """A `.tflite` file on ai-edge-litert."""

    package = "LiteRT"
    interpreter = Interpreter
