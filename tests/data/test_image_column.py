import pytest

from mlopsdeploy.data.matching import choose_image_column
from mlopsdeploy.errors import InputError

PATHS = ["a/1.jpg", "a/2.PNG", None, ""]
WORDS = ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"file": WORDS, "id": WORDS}, "file"),
        ({"Image Path": WORDS, "photo": PATHS}, "Image Path"),
        ({"file": WORDS, "path": PATHS}, "path"),
        ({"shot": PATHS, "note": WORDS}, "shot"),
        ({"shot": ["s3://bucket/a.jpg?sig=1"], "note": WORDS}, "shot"),
    ],
)
def test_found_by_its_name_or_else_by_its_values(columns, chosen):
    assert choose_image_column(columns, None, "list.csv") == chosen


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": PATHS, "b": PATHS}, "which column names the pictures, 'a' or 'b'"),
        ({"file": WORDS, "path": WORDS}, "which column names the pictures, 'file' or 'path'"),
        ({"a": WORDS, "n": [1, 2]}, "no column names pictures; there are: 'a' and 'n'"),
        ({"a": [None, ""]}, "no column names pictures"),
    ],
)
def test_where_that_does_not_tell_it_asks(columns, message):
    with pytest.raises(InputError, match=message) as raised:
        choose_image_column(columns, None, "list.csv")
    assert "--image-column NAME" in str(raised.value)


def test_the_one_asked_for():
    assert choose_image_column({"file": PATHS, "b": WORDS}, "b", "list.csv") == "b"
    with pytest.raises(InputError, match="no column 'c'; there are: 'file' and 'b'"):
        choose_image_column({"file": PATHS, "b": WORDS}, "c", "list.csv")
