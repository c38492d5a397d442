"""How a model's file runs: one module a runtime, found by name through the entry points.

The module, the entry point, the name in a config and the extra are one word:
`runtimes/onnxruntime.py`, `runtime: onnxruntime`, `pip install 'mlopsdeploy[onnxruntime]'`.
"""
