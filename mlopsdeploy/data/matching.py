"""Which columns of an input a model takes."""

from __future__ import annotations

from collections.abc import Mapping

from mlopsdeploy.core.inputs import some
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.image_column import choose as choose_image_column
from mlopsdeploy.data.sources import PictureFiles, Source
from mlopsdeploy.data.text_column import choose as choose_text_column
from mlopsdeploy.errors import InputError, ModelError


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
    wishes, path = model.task.inputs, source.path
    pictures = model.task.data == "image"
    if image_column and not pictures:
        raise InputError(f"--image-column: {model.name} does not look at pictures")
    if isinstance(source, PictureFiles) and not pictures:
        raise InputError(
            f"{path}: {'holds pictures' if source.several else 'is a picture'}, at which "
            f"{model.name} can't look; name a model that does, as in --model detector"
        )
    sample = source.sample()
    if [wish.name for wish in wishes] == ["text"] and wishes[0].dtype == "str":
        return {"text": choose_text_column(sample, text_column, path)}
    if text_column:
        what = "pictures" if pictures else f"{len(wishes)} features"
        raise InputError(f"--text-column: {model.name} takes {what}, not a text")
    if pictures:
        return {wishes[0].name: choose_image_column(sample, image_column, path)}
    if any(len(wish.shape) > 1 for wish in wishes):
        raise ModelError(f"{model.name}: takes arrays, which no column of a table is")
    if nameless := next((wish for wish in wishes if wish.shape), None):
        raise ModelError(
            f"{model.name}: takes {nameless.shape[0]} features but does not name them; list the "
            "columns in the model's order with --features a,b,c or 'features:' in a YAML beside "
            "the file"
        )
    missing = [wish.name for wish in wishes if wish.name not in sample]
    if missing:
        raise InputError(
            f"{path}: lacks {some(missing)}, which {model.name} needs; it has {some(list(sample))}"
        )
    return {wish.name: wish.name for wish in wishes}
