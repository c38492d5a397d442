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
WORKS: dict[str, dict[str, tuple[str, ...]]] = {
    "text_classification": {"openvino": ALL, "onnxruntime": ALL, "torch": ALL},
    "tabular_classification": _GRAPHS,
    "image_classification": _GRAPHS,
    "object_detection": _GRAPHS,
}

READMES = {
    "README.md": ("texts", "rows of numbers", "pictures, a label each", "pictures, boxes"),
    "README.zh-CN.md": ("文本", "数值行", "图片，每张一个标签", "图片，目标框"),
}
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
