"""Writes the table of what composes with what into the READMEs.

    python docs/composition.py

tests/test_composition.py proves each cell, the empty ones too.
"""

from pathlib import Path

ALL = ("batch", "serve", "edge")
RUNTIMES = ("openvino", "onnxruntime", "litert", "tensorflow", "torch", "tflite")

# tflite-runtime wants NumPy 1, which what batch and serve need does not.
_GRAPHS = {
    "openvino": ALL,
    "onnxruntime": ALL,
    "litert": ALL,
    "tensorflow": ALL,
    "tflite": ("edge",),
}
_TEXTS = {"openvino": ALL, "onnxruntime": ALL, "torch": ALL}
# A task, and what it is tried with where there are several kinds.
WORKS: dict[str, dict[str, tuple[str, ...]]] = {
    "text_classification": _TEXTS,
    "text_regression": _TEXTS,
    "tabular_classification": _GRAPHS,
    "tabular_classification: several labels": _GRAPHS,
    "tabular_regression": _GRAPHS,
    "tabular_regression: windows": _GRAPHS,
    "multi_output": _GRAPHS,
    "clustering": _GRAPHS,
    "anomaly_detection: detectors": _GRAPHS,
    "anomaly_detection: autoencoders": _GRAPHS,
    "image_classification": _GRAPHS,
    "image_regression": _GRAPHS,
    "image_multi_output": _GRAPHS,
    "object_detection": _GRAPHS,
    "tensors": _GRAPHS,
}

READMES = {
    "README.md": (
        "texts, a label each", "texts, numbers", "rows, a label each", "rows, several labels",
        "rows, numbers", "windows (time, features)", "rows, several answers", "rows, clusters",
        "rows, outliers", "rows, reconstruction error", "pictures, a label each",
        "pictures, numbers", "pictures, several answers", "pictures, boxes",
        "any tensors as they are",
    ),
    "README.zh-CN.md": (
        "文本，每条一个标签", "文本，数值", "数据行，每行一个标签", "数据行，多个标签",
        "数据行，数值", "时间窗口（时间 × 特征）", "数据行，多个输出", "数据行，聚类",
        "数据行，离群点", "数据行，重构误差",
        "图片，每张一个标签", "图片，数值", "图片，多个输出", "图片，目标框", "任意张量，原样输出",
    ),
}  # fmt: skip
BEGIN, END = "<!-- composition -->\n", "<!-- /composition -->"


def table(names: tuple[str, ...]) -> str:
    """The matrix as Markdown; a cell lists the strategies."""
    lines = [
        "| | " + " | ".join(f"`{runtime}`" for runtime in RUNTIMES) + " |",
        "| --- |" + " :---: |" * len(RUNTIMES),
    ]
    for name, works in zip(names, WORKS.values(), strict=True):
        cells = [works.get(runtime, ()) for runtime in RUNTIMES]
        shown = ["✓" if cell == ALL else ", ".join(cell) or "–" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Put it between the two marks of each README."""
    for file, names in READMES.items():
        path = Path(__file__).resolve().parent.parent / file
        before, _, rest = path.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{BEGIN}\n{table(names)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
