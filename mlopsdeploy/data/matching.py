"""Which columns of an input a model takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlopsdeploy.core.inputs import some
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.sources import PictureFiles, Source, is_picture
from mlopsdeploy.errors import InputError, ModelError

TEXT_NAME = "review_text"
IMAGE_NAMES = ("file", "path", "image", "image_path", "filename")
_MARKUP = re.compile(
    r"^(https?://\S+|[\d\s.,:/+-]+([ap]m)?|\d{1,2}[-\s]\w{3}[-\s]\d{2,4})$", re.IGNORECASE
)


def content_column(columns: Mapping[str, str]) -> str | None:
    """The column that tells a person what a row is: its text, or the name of its picture."""
    return columns.get("text", columns.get("image"))


def match_columns(
    model: Model,
    source: Source,
    *,
    text_column: str | None = None,
    image_column: str | None = None,
) -> dict[str, str]:
    """The model's input -> the source's column.

    Args:
        model: what is to be fed.
        source: what the rows come from.
        text_column: the column of texts, where the user names it.
        image_column: the column of paths of pictures, where the user names it.

    Raises:
        InputError: a column is missing, or several could be meant.
        ModelError: the model takes what no column holds, or does not name its features.
    """
    fields, path = model.task.inputs, source.path
    pictures = model.task.data == "image"
    if image_column and not pictures:
        raise InputError(f"--image-column: {model.name} does not look at pictures")
    if isinstance(source, PictureFiles) and not pictures:
        raise InputError(
            f"{path}: {'holds pictures' if source.several else 'is a picture'}, at which "
            f"{model.name} can't look; name a model that does, as in --model detector"
        )
    sample = source.sample()
    if [field.name for field in fields] == ["text"] and fields[0].dtype == "str":
        return {"text": choose_text_column(sample, text_column, path)}
    if text_column:
        what = "pictures" if pictures else f"{len(fields)} features"
        raise InputError(f"--text-column: {model.name} takes {what}, not a text")
    if pictures:
        return {fields[0].name: choose_image_column(sample, image_column, path)}
    if any(len(field.shape) > 1 for field in fields):
        raise ModelError(f"{model.name}: takes arrays, which no column of a table is")
    if nameless := next((field for field in fields if field.shape), None):
        raise ModelError(
            f"{model.name}: takes {nameless.shape[0]} features but does not name them; list the "
            "columns in the model's order with --features a,b,c or 'features:' in a YAML beside "
            "the file"
        )
    missing = [field.name for field in fields if field.name not in sample]
    if missing:
        raise InputError(
            f"{path}: lacks {some(missing)}, which {model.name} needs; it has {some(list(sample))}"
        )
    return {field.name: field.name for field in fields}


def choose_text_column(sample: Mapping[str, Sequence[Any]], asked: str | None, path: str) -> str:
    """The name of the column to score.

    The one asked for; else `review_text` (in any spelling: "Review Text"); else the only one whose
    values read like text: several words, and not the same few values over and over.

    Raises:
        InputError: there is no such column, or several could be meant; the message names them.
    """
    if asked is not None:
        return _there(asked, sample, path)
    names = list(sample)
    if named := next((name for name in names if _plain(name) == TEXT_NAME), None):
        return named
    text_like = [name for name in names if _is_text(sample[name])]
    if not text_like and len(names) == 1 and _texts(sample[names[0]]):
        return names[0]
    if len(text_like) == 1:
        return text_like[0]
    problem = (
        f"which column is the text, {listed(text_like, 'or')}?"
        if text_like
        else f"no column reads like text; there are: {listed(names)};"
    )
    raise InputError(f"{path}: {problem} say --text-column NAME")


def _there(asked: str, sample: Mapping[str, Sequence[Any]], path: str) -> str:
    """The column that the user names."""
    if asked not in sample:
        raise InputError(f"{path}: no column {asked!r}; there are: {listed(list(sample))}")
    return asked


def _texts(values: Sequence[Any]) -> list[str]:
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def _is_text(values: Sequence[Any]) -> bool:
    texts = _texts(values)
    prose = [text for text in texts if not _MARKUP.match(text)]
    if not prose or len(prose) < len(texts) / 2:
        return False
    words = sum(_words(text) for text in prose) / len(prose)
    distinct = len(set(prose)) / len(prose)
    return words >= 3 and (distinct > 0.3 or words >= 8)


def _words(text: str) -> float:
    """Words between spaces; two characters of a script written without spaces count as one."""
    dense = sum("\u3040" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7a3" for char in text)
    return len(text.split()) + dense / 2


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names of columns, in words."""
    quoted = [repr(name) for name in names[:12]] + (["more"] if len(names) > 12 else [])
    return f" {last} ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def choose_image_column(sample: Mapping[str, Sequence[Any]], asked: str | None, path: str) -> str:
    """The name of the column with the paths of pictures.

    The one asked for; else the only one that is called so (`file`, `path`, `image`, `image_path`,
    `filename`, in any spelling: "Image Path"), or of several the only one whose values look like
    paths of pictures; else the only one whose values do, whatever it is called.

    Raises:
        InputError: there is no such column, or several could be meant; the message names them.
    """
    if asked is not None:
        return _there(asked, sample, path)
    names = list(sample)
    called = [name for name in names if _plain(name) in IMAGE_NAMES]
    if len(called) == 1:
        return called[0]
    looking = [name for name in names if _names_pictures(sample[name])]
    found = [name for name in looking if name in called] or looking
    if len(found) == 1:
        return found[0]
    problem = (
        f"which column names the pictures, {listed(found or called, 'or')}?"
        if found or called
        else f"no column names pictures; there are: {listed(names)};"
    )
    raise InputError(f"{path}: {problem} say --image-column NAME")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _names_pictures(values: Sequence[Any]) -> bool:
    """Whether most of the values are paths of pictures, by their ends."""
    texts = _texts(values)
    return sum(map(is_picture, texts)) > len(texts) / 2
