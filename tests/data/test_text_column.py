import random

import pytest

from mlopsdeploy.data.matching import choose_text_column
from mlopsdeploy.errors import InputError

IDS = [f"R{number:04}" for number in range(40)]
DATES = [f"2026-03-{number % 28 + 1:02}" for number in range(40)]
RATINGS = [str(number % 5 + 1) for number in range(40)]
PRODUCTS = [
    ["Murmel Wireless Earbuds", "Peakwell Kettle 1.7 L"][number % 2] for number in range(40)
]
TEXTS = [f"It broke after {number} days and nobody cared, sadly." for number in range(40)]
TITLES = [f"Not worth {number} euros at all" for number in range(40)]


def test_the_typical_export_of_a_shop():
    sample = {"id": IDS, "date": DATES, "rating": RATINGS, "product": PRODUCTS, "body": TEXTS}
    assert choose_text_column(sample, None, "r.csv") == "body"


@pytest.mark.parametrize("name", ["review_text", "Review Text", "REVIEW-TEXT", " review_text "])
def test_review_text_in_any_spelling_wins(name):
    assert choose_text_column({"summary": TITLES, name: TEXTS}, None, "r.csv") == name


def test_the_column_asked_for_wins_over_all():
    assert choose_text_column({"review_text": TEXTS, "title": TITLES}, "title", "r.csv") == "title"


def test_the_column_asked_for_is_not_there():
    with pytest.raises(InputError, match=r"^r\.csv: no column 'txt'; there are: 'id' and 'body'$"):
        choose_text_column({"id": IDS, "body": TEXTS}, "txt", "r.csv")


def test_several_texts_are_a_question():
    with pytest.raises(InputError, match=r"'title' or 'body'\? say --text-column NAME"):
        choose_text_column({"id": IDS, "title": TITLES, "body": TEXTS}, None, "r.csv")


def test_no_text_names_what_there_is():
    with pytest.raises(
        InputError, match=r"no column reads like text; there are: 'id' and 'rating'"
    ):
        choose_text_column({"id": IDS, "rating": RATINGS}, None, "r.csv")


def test_a_single_column_is_the_text_even_of_single_words():
    assert choose_text_column({"x": ["great", "awful", ""]}, None, "r.csv") == "x"


def test_a_single_column_without_any_text():
    with pytest.raises(InputError, match="no column reads like text"):
        choose_text_column({"x": ["", "  ", None]}, None, "r.csv")
    with pytest.raises(InputError, match="no column reads like text"):
        choose_text_column({"x": [1, 2]}, None, "r.csv")


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


def test_mostly_empty_comments_are_still_text():
    comments = [text if place % 7 == 0 else "" for place, text in enumerate(TEXTS)]
    assert choose_text_column({"id": IDS, "comment": comments}, None, "r.csv") == "comment"


def test_a_few_urls_among_texts_do_not_matter():
    texts = [*TEXTS[:35], *["https://shop.example/1"] * 5]
    assert choose_text_column({"id": IDS, "comment": texts}, None, "r.csv") == "comment"


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
