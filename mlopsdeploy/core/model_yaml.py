"""What `model.yaml` may say: every key, with its type, range, meaning and an example.

The same keys hold for the YAML next to a single model file. `docs/reference/model-yaml.md` and
`model.yaml.schema.json` are made from this module by `python docs/reference.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mlopsdeploy.core.language_codes import ALIKE, LANGUAGES
from mlopsdeploy.core.yaml_files import read_yaml, text_of
from mlopsdeploy.errors import ModelError, did_you_mean


def _text(value: object) -> object:
    value = text_of(value)
    if isinstance(value, bool) or value is None:
        word = {True: "true", False: "false", None: "null"}[value]
        raise ValueError(f"{word} is no text in YAML; put it in quotes: '{word}'")
    return value


def _numbers(value: object) -> object:
    return [value] if isinstance(value, int | float) else value


def _names_or_file(value: object) -> object:
    value = text_of(value) if isinstance(value, str) else value
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"expected a list of names, or a file's name, not {_shown(value)}")
    return value


def _language(code: str) -> str:
    known = {*LANGUAGES, *ALIKE}
    if code not in known:
        raise ValueError(f"{code!r} is no language's code; {did_you_mean(code, known)}")
    return code


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str)]
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Size = Annotated[tuple[Positive, Positive], Field(json_schema_extra={"type": "array"})]
Ratio = Annotated[float, Field(strict=True, gt=0)]
Route = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~:-]+)+$")]
Language = Annotated[Text, AfterValidator(_language)]
Sha256 = Annotated[Text, Field(pattern=r"^[0-9a-fA-F]{64}$")]
Names = Annotated[
    tuple[Text, ...] | str,
    BeforeValidator(_names_or_file, json_schema_input_type=list[str] | str),
]
Numbers = Annotated[
    tuple[Number, ...],
    Field(min_length=1),
    BeforeValidator(_numbers, json_schema_input_type=float | list[float]),
]


def _optional(example: Any) -> Any:
    """A key that may be missing; the example is for the reference."""
    return Field(default=None, examples=[example])


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InputKeys(_Keys):
    """How pixels become the numbers that the model takes."""

    size: Size | None = _optional([300, 300])
    """Height and width, where the file leaves them open."""
    color: Literal["rgb", "bgr", "gray"] | None = _optional("rgb")
    """The order of the channels."""
    mean: Numbers | None = _optional(127.5)
    """Subtracted from each pixel of 0 to 255: one number, or one for each channel."""
    std: Numbers | None = _optional([58.4, 57.1, 57.4])
    """What the pixel is divided by after that; not 0."""
    resize: Literal["stretch", "letterbox"] | None = _optional("letterbox")
    """`letterbox` keeps the proportions and fills up with grey."""


class OutputKeys(_Keys):
    """Which of a detector's output tensors is what, and how its boxes are written."""

    boxes: Text | None = _optional("StatefulPartitionedCall:1")
    """The tensor with the boxes."""
    scores: Text | None = _optional("StatefulPartitionedCall:2")
    """The tensor with the scores."""
    classes: Text | None = _optional("StatefulPartitionedCall:3")
    """The tensor with the numbers of the classes."""
    count: Text | None = _optional("StatefulPartitionedCall:0")
    """The tensor that says how many boxes there are."""
    order: Literal["xyxy", "yxyx", "xywh"] | None = _optional("yxyx")
    """The four numbers of a box; `xywh` is centre, width and height."""
    coordinates: Literal["pixels", "relative"] | None = _optional("relative")
    """Pixels of the model's input, or parts of it from 0 to 1."""
    objectness: bool | None = _optional(example=False)
    """YOLO: whether column 4 says how surely there is any object."""
    logits: bool | None = _optional(example=True)
    """Whether a sigmoid still has to follow."""


class BoxKeys(_Keys):
    """The anchors of an SSD detector whose file does not describe them."""

    size: Size = Field(examples=[[300, 300]])
    """Height and width of the model's input, in pixels."""
    strides: Annotated[tuple[Positive, ...], Field(min_length=1, examples=[[16, 32, 64]])]
    """Pixels from one anchor to the next, for each feature map."""
    min_scale: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.2
    """Side of the anchors of the finest map, as a part of the picture."""
    max_scale: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.95
    """Side of the anchors of the coarsest map; the maps between are spaced evenly."""
    aspect_ratios: tuple[Ratio, ...] = (1, 2, 0.5, 3, 1 / 3)
    """Width / height of the anchors at every place of a map."""
    reduced_lowest: bool = True
    """Whether the finest map has only three anchors at each place."""
    coder: Annotated[tuple[Ratio, ...], Field(min_length=4, max_length=4)] = (10, 10, 5, 5)
    """Divisors of the encoded y, x, height and width."""
    background: Annotated[int, Field(strict=True, ge=0)] | None = 0
    """The class that stands for no object; null where all are objects."""
    iou: Share = 0.5
    """Boxes of one class that overlap by more than this are one object."""
    limit: Positive = 100
    """Objects in a picture at most."""


class HeadKeys(_Keys):
    """One of several answers: the output of that name."""

    task: Literal["classification", "regression"] | None = _optional("regression")
    """What it is, where the file doesn't tell."""
    activation: Literal["none", "sigmoid", "softmax"] | None = _optional("softmax")
    """What turns it into probabilities."""
    multi_label: bool | None = _optional(example=True)
    """Whether it may have several labels, each with a probability of its own."""
    labels: tuple[Text, ...] | None = _optional(["card", "transfer"])
    """Names of its classes, or of its values, in the model's order."""
    threshold: Share | None = _optional(0.31)
    """The least score of the second of two classes."""


class ServeKeys(_Keys):
    """How callers of `serve` know the model, unless the server's settings say otherwise."""

    route: Route | None = _optional("/detect_fraud")
    """The path of its endpoint."""
    input: Annotated[str, Field(min_length=1)] | None = _optional("transaction_data")
    """The key of a request's rows."""
    answer: dict[str, Text] | None = _optional(
        {"is_fraud": "label == fraud", "score": "scores.fraud"}
    )
    """Each key of the answer, and where its value comes from."""


class ModelYaml(_Keys):
    """What a model's author says of it, beyond what its files tell by themselves."""

    name: Text | None = _optional("fraud")
    """What the model is called; by default as its folder or file."""
    version: Text | None = _optional("1.10")
    """Its version, any text."""
    description: Text | None = _optional("Credit card fraud, 2013")
    """What it is for, for people."""
    task: Text | None = _optional("tabular_classification")
    """What its data mean: the name of a task."""
    languages: tuple[Language, ...] | None = _optional(["en"])
    """Texts: the languages that it reads, as ISO 639 codes; a text in another one is noticed."""
    precision: Literal["float32", "bfloat16", "int8"] | None = _optional("int8")
    """What it was proven in, which is what it runs in unless a setting says otherwise."""
    labels: Names | None = _optional(["legitimate", "fraud"])
    """Names of the classes in the model's order, or a file with one a line."""
    label_offset: Whole | None = _optional(1)
    """Which label is that of class 0, where the list begins with a background or lacks it."""
    threshold: Number | None = _optional(0.31)
    """The least score of the second of two classes, or of an object; of an anomaly detector the
    least decision, of an autoencoder the largest error, that is normal."""
    features: tuple[Text, ...] | None = _optional(["age", "amount"])
    """Tabular: the input columns in the model's order."""
    output: Text | None = _optional("probabilities")
    """Which output tensor holds the scores, where there are several."""
    activation: Literal["none", "sigmoid", "softmax"] | None = _optional("softmax")
    """What turns the output into probabilities; `none` where it holds some."""
    multi_label: bool | None = _optional(example=True)
    """Whether a row may have several labels, each with a probability of its own; a sigmoid of
    several numbers says so by itself."""
    changing: bool | None = _optional(example=True)
    """Whether the same row may have another answer the next time: else such a model is refused."""
    input: InputKeys | None = None
    """Pictures: size, colours and normalisation."""
    heads: dict[Text, HeadKeys] | None = _optional({"price": {"task": "regression"}})
    """Several answers: for each output that is one, what it is; others are left out."""
    outputs: OutputKeys | None = None
    """Detectors: the output tensors."""
    boxes: BoxKeys | None = None
    """SSD detectors: the anchors."""
    float32: Text | None = _optional("float32.xml")
    """Of a quantised model, the `.onnx` or `.xml` file in float32 that decides close calls."""
    example: Any = _optional("Works like a charm.")
    """A row, or a picture's file name: shown on pages, used for warming up and measuring."""
    serve: ServeKeys | None = None
    """How `serve` presents it."""
    sha256: dict[Text, Sha256] | None = _optional({"model.onnx": "70b853f6…"})
    """SHA-256 of files, by their path from here; checked each time that the model is loaded."""
    proof: dict[str, Any] | None = None
    """How far it agrees with the model that it was made from; written by `models`."""
    made_from: dict[str, Any] | None = None
    """The model that it was made from: name, version, digest, format; written by `models`."""

    @model_validator(mode="after")
    def _check(self) -> ModelYaml:
        if self.input and self.input.std and 0 in self.input.std:
            raise ValueError("input.std: can't be 0")
        for feature in self.features or ():
            if (self.features or ()).count(feature) > 1:
                raise ValueError(f"features: {feature!r} is named twice")
        return self

    def answer_keys(self) -> dict[str, Any]:
        """The keys that shape answers, as JSON; labels, threshold and files count as resolved."""
        return self.model_dump(mode="json", include=_SHAPING, exclude_none=True)

    def written(self) -> dict[str, Any]:
        """The keys that were given, for writing them again."""
        return self.model_dump(mode="json", exclude_unset=True)


_SHAPING = {
    "label_offset", "output", "activation", "multi_label", "input", "heads", "outputs", "boxes",
}  # fmt: skip
_PARTS: dict[str, type[_Keys]] = {
    "": ModelYaml, "input": InputKeys, "outputs": OutputKeys, "boxes": BoxKeys, "serve": ServeKeys,
    "heads": HeadKeys,
}  # fmt: skip
_EXPECTED = {
    "tuple_type": "a list", "string_type": "text", "int_type": "a whole number",
    "int_from_float": "a whole number", "float_type": "a number", "finite_number": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false", "dict_type": "a map of keys",
    "model_type": "a map of keys",
}  # fmt: skip


def read_model_yaml(path: Path, known: Mapping[str, Any] = {}) -> ModelYaml:
    """The keys of a file, and those `known` that it doesn't have; these alone if it's not there.

    Raises:
        ModelError: it can't be read, or a key is unknown or wrong; one line names it.
    """
    written = read_yaml(path, ModelError) if path.is_file() else {}
    try:
        return ModelYaml.model_validate({**known, **written})
    except ValidationError as error:
        problem = max(error.errors(), key=lambda one: len(one["loc"]))
        raise ModelError(f"{path}: {_explain(dict(problem))}") from error


def _explain(problem: dict[str, Any]) -> str:
    # A union's alternative, such as `tuple[...]` or `str`, is part of pydantic's path.
    places = [p for p in problem["loc"] if not (isinstance(p, str) and ("[" in p or p == "str"))]
    parts = (f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)
    key = "".join(parts).lstrip(".")
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        within = ".".join(map(str, places[:-1]))  # `heads` has keys of the user's own
        known = _PARTS.get(within, _PARTS[within.partition(".")[0]]).model_fields
        return f"unknown key {key!r}; {did_you_mean(str(places[-1]), known)}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "value_error":
        text = str(context["error"])
        return f"{key}: {text}" if key else text
    expected = _EXPECTED.get(kind)
    if kind == "literal_error":
        expected = context["expected"]
    if key.startswith("sha256."):
        expected = "64 hexadecimal digits"
    if expected:
        return f"{key}: expected {expected}, not {_shown(value)}"
    limit = problem["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{key}: {_shown(value)}: {limit[:1].lower()}{limit[1:]}"


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
