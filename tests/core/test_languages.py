"""Which language a text is in: real sentences in many, and where nobody could tell."""

import csv
from pathlib import Path

import pytest

from mlopsdeploy.core.languages import languages_of, reads

REVIEWS = Path(__file__).resolve().parents[2] / "examples" / "reviews.csv"

SENTENCES = [
    ("en", "Arrived in two days and works like a charm."),
    ("en", "This is the worst hotel I have ever stayed in, never again!"),
    ("de", "Das Gerät war nach zwei Tagen kaputt, sehr ärgerlich."),
    ("de", "Sehr gute Qualität, schnelle Lieferung"),
    ("fr", "Très bon produit, livraison rapide"),
    ("es", "Muy buena calidad, lo recomiendo"),
    ("it", "Ottimo prodotto, consegna veloce"),
    ("pt", "Chegou quebrado e com atraso"),
    ("nl", "Helaas werkt het niet meer"),
    ("pl", "Nie działa, jestem rozczarowany"),
    ("tr", "Hiç beğenmedim, iade ettim"),
    ("vi", "Sản phẩm rất tốt, giao hàng nhanh"),
    ("ru", "Очень хороший товар, рекомендую"),
    ("ar", "المنتج ممتاز ووصل بسرعة"),
    ("he", "מוצר מעולה, הגיע מהר"),
    ("hi", "बहुत अच्छा उत्पाद है"),
    ("th", "สินค้าดีมาก ส่งเร็ว"),
    ("el", "Πολύ καλό προϊόν, το συνιστώ"),
    ("zh", "很好吃，下次还来"),
    ("zh", "搶到最後一份 讚"),
    ("zh", "好"),
    ("zh", "这个 iPhone 手机壳很好用"),
    ("zh", "今天好开心😂😂😂"),
    ("ja", "とても美味しかったです"),
    ("ja", "配送が早くて助かりました。"),
    ("ja", "コスパ最高"),
    ("ko", "배송이 빠르고 좋아요"),
    ("ko", "좋아요"),
]


@pytest.mark.parametrize(("language", "text"), SENTENCES)
def test_a_sentence(language, text):
    assert languages_of([text]).tolist() == [language]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "\n\0", "12345", "!!! ??? ...", "😍😍👍", "http://a.b/?c=1234",
        "ok", "super", "Great", "GREAT!", "SMALL SIZE, COOL", "prima",  # of many languages, or few
        "\ud83d", "\U0010ffff" * 30,
    ],
)  # fmt: skip
def test_what_is_too_little_to_tell(text):
    assert languages_of([text]).tolist() == [""]


@pytest.mark.parametrize(
    "text",
    [
        "EASE OF USE, GREAT PHOTOS",
        "Pictures tend to be blurry",
        "SMALL SIZE,COOL BACKLIGHT,NICE ONE HANDED SLIDE,ATTENTION GETTER",
        "GREAT QUALITY/BATTERY/EXTRA'S",
        "half of a pair of what UTF-16 has\ud83d is in this one",
        "Loved the 小笼包 here, and the staff was friendly",
    ],
)
def test_what_is_written_in_letters_is_never_of_the_far_east(text):
    """fastText takes some of these for Chinese or Japanese."""
    assert languages_of([text]).tolist() in ([""], ["en"])


def test_texts_are_told_apart_whatever_stands_beside_them():
    texts = [text for _, text in SENTENCES]
    assert languages_of(texts).tolist() == [language for language, _ in SENTENCES]
    assert languages_of([]).shape == (0,)
    assert languages_of([f"{text}\n{'x' * 5000}" for text in texts[2:4]]).shape == (2,)


def test_no_review_in_english_is_taken_for_another_language():
    """However short, loud or full of names."""
    texts = [
        "good", "Five Stars", "love it!!!", "It's OK, I guess", "Works great. Easy set-up :)",
        "My 4 y.o. LOVES it", "WiFi + Bluetooth = great", "meh...", "A+++++ seller", "10/10",
        "Best $20 I've ever spent!", "Déjà vu: same defect, again", "sooooo goooood",
        "Café was nice, crème brûlée a bit too sweet", "Alexa, Echo Dot, Hue: all work together",
        "didn't fit. returned it.", "no issues so far", "Nope.", "Perfecto! Just what I needed",
    ]  # fmt: skip
    found = dict(zip(texts, languages_of(texts).tolist(), strict=True))
    assert {text: code for text, code in found.items() if code not in ("", "en")} == {}


def test_a_file_of_reviews():
    """Of its 257 rows fourteen are in other languages, and these are found, and no others."""
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        texts = [row["review_text"] for row in csv.DictReader(file)]
    others = [language for language in languages_of(texts) if language not in ("", "en")]
    assert others == [
        "de", "de", "de", "de", "fr", "fr", "fr", "es", "zh", "es", "fr", "zh", "es", "zh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("languages", "language", "expected"),
    [
        (["en"], "en", True), (["en", "zh"], "zh", True), (["en"], "de", False), ([], "en", False),
        (["zh"], "yue", True), (["zh"], "ja", False), (["no"], "nb", True), (["hr"], "sr", True),
        (["id"], "ms", True), (["en"], "sco", True), (["de"], "als", True), (["de"], "nl", False),
    ],
)  # fmt: skip
def test_who_reads_what(languages, language, expected):
    assert reads(languages, language) == expected
