"""Which columns of an input a model takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlopsdeploy.columns import Field
from mlopsdeploy.core.inputs import lacking_row, parts_of_row, some
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.sources import PictureFiles, Source, is_picture, parts_of
from mlopsdeploy.errors import InputError, ModelError

MANY_PARTS = 6  # columns of one input, from which on they are counted
TEXT_NAME = "review_text"
# What people call a column of texts: one of these words, and perhaps others of these with it.
_TEXT_WORDS = """
    review reviews text texts content comment comments body message messages feedback tweet tweets
    bewertung rezension kommentar opinion comentario reseña avis commentaire recensione commento
    avaliação comentário отзыв комментарий 评论 评价 内容 留言 評論 內容 レビュー コメント 리뷰 댓글
    bewertungen kommentare nachricht comentarios reseñas texto mensaje mensagem comentários
    commentaires texte recensioni commenti testo tekst отзывы комментарии текст сообщение
    avaliações 文本 本文 텍스트
""".split()  # noqa: SIM905  # one a line would be a page
_BESIDE = ["user", "customer", "full", "my", "the"]
IMAGE_NAMES = ("file", "path", "image", "image_path", "filename")
_MARKUP = re.compile(
    r"^(https?://\S+|[\d\s.,:/+-]+([ap]m)?|\d{1,2}[-\s]\w{3}[-\s]\d{2,4})$", re.IGNORECASE
)


def content_column(columns: Mapping[str, str]) -> str | None:
    """The column that tells a person what a row is: its text, or the name of its picture."""
    return columns.get("text", columns.get("image"))


def scored(columns: Mapping[str, str]) -> str:
    """What is scored, for people: the columns that a model is given."""
    names = list(columns.values())
    if len(names) == 1 and names[0].count(",") < MANY_PARTS:
        return names[0]
    names = [part for name in names for part in name.split(",")]
    return f"{len(names)} columns: {some(names)}"


def reading(read: Mapping[str, Any]) -> Iterator[str]:
    """How the input was read, for people: `csv, delimiter ';', encoding 'utf-16'`."""
    yield read["format"]
    usual = {"format": read["format"], "encoding": "utf-8"}
    yield from (f"{name} {value!r}" for name, value in read.items() if usual.get(name) != value)


def match_columns(
    model: Model,
    source: Source,
    *,
    text_column: str | None = None,
    image_column: str | None = None,
    features: Sequence[str] = (),
) -> dict[str, str]:
    """The model's input -> the source's column.

    Args:
        model: what is to be fed.
        source: what the rows come from.
        text_column: the column of texts, where the user names it.
        image_column: the column of paths of pictures, where the user names it.
        features: the columns of a row of several numbers, where the user names them. Such a row is
            a column of lists, or as many columns: these are then all in the name, with commas.

    Raises:
        InputError: a column is missing, or several could be meant.
        ModelError: the model does not name its features.
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
    return {
        field.name: _column_of(field, list(sample), features or model.task.features, model, path)
        for field in fields
    }


def _column_of(
    field: Field, names: list[str], features: Sequence[str], model: Model, path: str
) -> str:
    """The column of an input; of a row of several numbers perhaps several, with commas between."""
    if field.name in names:
        return field.name
    if not field.shape:
        missing = [one.name for one in model.task.inputs if one.name not in names]
        raise InputError(
            f"{path}: lacks {some(missing)}, which {model.name} needs; it has {some(names)}"
        )
    parts = parts_of_row(field, names, features)
    if comma := next((part for part in parts if "," in part), None):
        raise InputError(f"{path}: column {comma!r} has a comma in its name; rename it")
    if parts:
        return ",".join(parts)
    problem = f"{path}: {model.name} {lacking_row(field, names, features)}"
    if field == model.task.matrix and not features:  # of features that nobody names
        problem = (
            f"{model.name}: takes {field.shape[0]} features but does not name them; list the "
            "columns in the model's order with --features a,b,c or 'features:' in a YAML beside "
            f"the file; or {problem}"
        )
        raise ModelError(problem)
    raise InputError(problem)


def choose_text_column(sample: Mapping[str, Sequence[Any]], asked: str | None, path: str) -> str:
    """The name of the column to score, or the names of several with commas between.

    The one asked for; else `review_text` (in any spelling: "reviewText"); else the only one that
    is called like a text (`review`, `content`, `user comment`) and holds words, however few; else
    the only one whose values read like text: several words, and not the same few over and over.

    Raises:
        InputError: there is no such column, or several could be meant; the message names them.
    """
    if asked is not None:
        for name in parts_of(asked, sample):
            _there(name, sample, path)
        return asked
    names = list(sample)
    if named := next((name for name in names if _plain(name) == TEXT_NAME), None):
        return named
    called = [name for name in names if _called_text(name) and _prose(sample[name])]
    text_like = called or [name for name in names if _is_text(sample[name])]
    if not text_like and len(names) == 1 and _prose(sample[names[0]]):
        return names[0]
    if len(text_like) == 1:
        return text_like[0]
    problem = (
        f"which column is the text, {listed(text_like, 'or')}?"
        if text_like
        else f"no column reads like text; there are: {listed(names)};"
    )
    several = f", or --text-column {','.join(text_like[:2])} for both" if text_like else ""
    raise InputError(f"{path}: {problem} say --text-column NAME{several}")


def check_kept(names: Sequence[str], sample: Mapping[str, Sequence[Any]], path: str) -> None:
    """Refuse columns to keep that the input has not.

    Raises:
        InputError: one is not there, or named twice.
    """
    for name in names:
        _there(name, sample, path)
        if names.count(name) > 1:
            raise InputError(f"--columns: {name!r} is named twice")


def _called_text(name: str) -> bool:
    words = set(_plain(name).split("_"))
    return not words.isdisjoint(_TEXT_WORDS) and words <= {*_TEXT_WORDS, *_BESIDE}


def _there(asked: str, sample: Mapping[str, Sequence[Any]], path: str) -> str:
    """The column that the user names."""
    if asked not in sample:
        raise InputError(f"{path}: no column {asked!r}; there are: {listed(list(sample))}")
    return asked


def _texts(values: Sequence[Any]) -> list[str]:
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def _prose(values: Sequence[Any]) -> list[str]:
    """The texts that are no numbers, dates or addresses; none if these are the most."""
    texts = _texts(values)
    prose = [text for text in texts if not _MARKUP.match(text)]
    return prose if len(prose) >= len(texts) / 2 else []


def _is_text(values: Sequence[Any]) -> bool:
    prose = _prose(values)
    if not prose:
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
    """`reviewText`, "Review Text" and `REVIEW-TEXT` as `review_text`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _names_pictures(values: Sequence[Any]) -> bool:
    """Whether most of the values are paths of pictures, by their ends."""
    texts = _texts(values)
    return sum(map(is_picture, texts)) > len(texts) / 2
