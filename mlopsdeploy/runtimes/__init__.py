"""How a model's file runs: one module a runtime, found by name through the entry points.

The module, the entry point, the name in a config and the extra are one word:
`runtimes/onnxruntime.py`, `runtime: onnxruntime`, `pip install 'mlopsdeploy[onnxruntime]'`.
"""

import sys

# From `import openvino` on, OpenVINO and NNCF report their use to Google Analytics through this
# package. They do without where it is missing, and this runs before either is imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
