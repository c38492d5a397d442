"""Which column holds the text, and which names the pictures."""

import random

import pytest

from mlopsdeploy.data.matching import choose_image_column, choose_text_column
from mlopsdeploy.errors import InputError

IDS = [f"R{number:04}" for number in range(40)]
DATES = [f"2026-03-{number % 28 + 1:02}" for number in range(40)]
RATINGS = [str(number % 5 + 1) for number in range(40)]
PRODUCTS = [
    ["Murmel Wireless Earbuds", "Peakwell Kettle 1.7 L"][number % 2] for number in range(40)
]
TEXTS = [f"It broke after {number} days and nobody cared, sadly." for number in range(40)]
MOSTLY_EMPTY = [text if place % 7 == 0 else "" for place, text in enumerate(TEXTS)]
TITLES = [f"Not worth {number} euros at all" for number in range(40)]


@pytest.mark.parametrize(
    ("columns", "asked", "chosen"),
    [
        (
            {"id": IDS, "date": DATES, "rating": RATINGS, "product": PRODUCTS, "body": TEXTS},
            None,
            "body",
        ),
        *(
            ({"summary": TITLES, name: TEXTS}, None, name)
            for name in ("review_text", "Review Text", "REVIEW-TEXT", " review_text ")
        ),
        ({"review_text": TEXTS, "title": TITLES}, "title", "title"),
        ({"x": ["great", "awful", ""]}, None, "x"),  # the only one, even of single words
        ({"content": ["ok", "Bad", ""], "replyContent": TEXTS}, None, "content"),
        ({"product_name": TITLES, "review": ["ok", "Bad"]}, None, "review"),
        ({"reviewText": ["ok"], "reviewTitle": TITLES}, None, "reviewText"),
        ({"title": TITLES, "body": TEXTS}, None, "body"),
        ({"标题": TITLES, "评论": ["很好", "差"]}, None, "评论"),
        ({"titulo": TITLES, "texto": ["muy bien", "mal"]}, None, "texto"),
        ({"summary": TEXTS, "comments": RATINGS}, None, "summary"),  # how many there are
        ({"title": TITLES, "body": TEXTS}, "title,body", "title,body"),
        ({"title,body": TITLES, "text": TEXTS}, "title,body", "title,body"),
        ({"id": IDS, "comment": MOSTLY_EMPTY}, None, "comment"),
        ({"id": IDS, "comment": [*TEXTS[:35], *["https://shop.example/1"] * 5]}, None, "comment"),
    ],
)
def test_the_column_of_texts(columns, asked, chosen):
    assert choose_text_column(columns, asked, "r.csv") == chosen


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        (
            {"id": IDS, "body": TEXTS},
            "txt",
            r"^r\.csv: no column 'txt'; there are: 'id' and 'body'$",
        ),
        (
            {"id": IDS, "title": TITLES, "summary": TEXTS},
            None,
            r"'title' or 'summary'\? say --text-column NAME, or --text-column title,summary for",
        ),
        ({"review": TITLES, "comment": TEXTS}, None, r"'review' or 'comment'\?"),
        ({"title": TITLES, "body": TEXTS}, "title,boddy", r"no column 'boddy'"),
        (
            {"id": IDS, "rating": RATINGS},
            None,
            r"no column reads like text; there are: 'id' and 'rating'; say --text-column NAME",
        ),
        ({"x": ["", "  ", None]}, None, "no column reads like text"),
        ({"x": [1, 2]}, None, "no column reads like text"),
        ({"price": ["1.5", "2,50"]}, None, "no column reads like text"),
    ],
)
def test_where_no_column_or_several_could_be_meant_it_asks(columns, asked, message):
    with pytest.raises(InputError, match=message):
        choose_text_column(columns, asked, "r.csv")


@pytest.mark.parametrize(
    "texts",
    [
        ["电池很快就没电了，非常失望。", "质量很好，推荐购买！", "一般般吧，没有想象中好"],
        ["バッテリーがすぐ切れます", "とても良い商品でした", "普通だと思います"],
        ["배터리가 너무 빨리 닳아요", "정말 좋은 제품입니다", "그냥 그래요 별로예요"],
    ],
)
def test_scripts_without_spaces_are_text(texts):
    sample = {"编号": ["A1", "A2", "A3"], "评分": ["1", "5", "3"], "评论": texts}
    assert choose_text_column(sample, None, "r.csv") == "评论"


@pytest.mark.parametrize(
    "values",
    [
        ["2026-03-01 12:30:00", "2026-03-02 08:00:12", "2026-03-02 18:00:12"],
        ["01/02/2026 3:15 pm", "01/03/2026 4:15 pm", "02/03/2026 4:45 am"],
        ["12-Mar-2026", "13-Mar-2026", "14 Apr 26"],
        ["https://shop.example/a b", "https://shop.example/?q=1", "http://x.example/c"],
        ["1 234,50", "99.90", "12 000"],
        ["a-1", "b-2", "c-3"],
        ["San Francisco Bay", "San Francisco Bay", "San Francisco Bay", "New York City"] * 5,
    ],
)
def test_what_is_not_text(values):
    values = (values * 20)[:40]
    sample = {"other": values, "body": TEXTS}
    assert choose_text_column(sample, None, "r.csv") == "body"


def test_order_of_rows_does_not_matter():
    rows = list(zip(IDS, DATES, PRODUCTS, TEXTS, strict=True))
    random.Random(0).shuffle(rows)
    sample = dict(
        zip(("id", "date", "product", "body"), map(list, zip(*rows, strict=True)), strict=True)
    )
    assert choose_text_column(sample, None, "r.csv") == "body"


def test_many_columns_are_not_all_listed():
    sample = {f"column_{number}": RATINGS for number in range(300)}
    with pytest.raises(InputError) as raised:
        choose_text_column(sample, None, "r.csv")
    assert "'column_11'" in str(raised.value)
    assert "column_12" not in str(raised.value)
    assert "more" in str(raised.value)


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
def test_the_column_of_pictures_by_its_name_or_else_by_its_values(columns, chosen):
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
def test_where_that_does_not_decide_it_asks(columns, message):
    with pytest.raises(InputError, match=message) as raised:
        choose_image_column(columns, None, "list.csv")
    assert "--image-column NAME" in str(raised.value)


def test_the_column_of_pictures_asked_for():
    assert choose_image_column({"file": PATHS, "b": WORDS}, "b", "list.csv") == "b"
    with pytest.raises(InputError, match="no column 'c'; there are: 'file' and 'b'"):
        choose_image_column({"file": PATHS, "b": WORDS}, "c", "list.csv")
