"""Which column names the pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlopsdeploy.data.sources.image_files import is_picture
from mlopsdeploy.data.text_column import listed
from mlopsdeploy.errors import InputError

NAMES = ("file", "path", "image", "image_path", "filename")


def choose(sample: Mapping[str, Sequence[Any]], asked: str | None, path: str) -> str:
    """The name of the column with the paths of pictures.

    The one asked for; else the only one that is called so (`file`, `path`, `image`, `image_path`,
    `filename`, in any spelling: "Image Path"), or of several the only one whose values look like
    paths of pictures; else the only one whose values do, whatever it is called.

    Raises:
        InputError: there is no such column, or several could be meant; the message names them.
    """
    names = list(sample)
    if asked is not None:
        if asked not in names:
            raise InputError(f"{path}: no column {asked!r}; there are: {listed(names)}")
        return asked
    called = [name for name in names if _plain(name) in NAMES]
    if len(called) == 1:
        return called[0]
    looking = [name for name in names if _names_pictures(sample[name])]
    found = [name for name in looking if name in called] or looking
    if len(found) == 1:
        return found[0]
    if found or called:
        raise InputError(
            f"{path}: which column names the pictures, {listed(found or called, 'or')}? say "
            "--image-column NAME"
        )
    raise InputError(
        f"{path}: no column names pictures; there are: {listed(names)}; say --image-column NAME"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _names_pictures(values: Sequence[Any]) -> bool:
    """Whether most of the values are paths of pictures, by their ends."""
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    return sum(map(is_picture, texts)) > len(texts) / 2
