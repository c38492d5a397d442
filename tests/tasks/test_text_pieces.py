"""Texts cut in pieces have the tokens of the whole, whatever the tokenizer is made of."""

import functools
import random
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

import mlopsdeploy
from mlopsdeploy.columns import objects
from mlopsdeploy.tasks import text_pieces
from mlopsdeploy.tasks import texts as texts_module
from mlopsdeploy.tasks.text_classification import TextClassification
from mlopsdeploy.tasks.text_pieces import Cutter

N, P = normalizers, pre_tokenizers
SCRIPTS = (
    "abcdefghijABC", "eéèüñçøßİıŀŉ", "абвгдЖё", "αβγσςΣΆ", "שלום", "مرحباـ", "नमस्तेऩ", "สวัสดี",
    "가나다한글", "かなカナー", "中文字文", "0123456789",
    "ªº²Ⅷﬁﷺ𝕴", "\u0301\u0308\u093c", "😍❤️👍🏽",
)  # fmt: skip
BETWEEN = (" ", " ", " ", "  ", "\n", " \n", "\t", "\r\n", "\u00a0", "\u200b", "\u2028", "\x00", "")
STOPS = (".", ",", "!", "'s", "'", "-", "。", "、", "！", "``", "...", "▁", "Ġ", "_")
TOKENS = ("[SEP]", "[MASK]", "<s>", "</s>", "covid", "<mask>", "[X")


def text(seed, length=60):
    """Words of one script or two, and what lies between them."""
    draw = random.Random(seed)
    parts = []
    for _ in range(length):
        letters = "".join(draw.choices(SCRIPTS, k=draw.choice((1, 1, 2))))
        word = "".join(draw.choices(letters, k=draw.randint(1, 8)))
        kind = draw.random()
        word = draw.choice(TOKENS) if kind > 0.95 else word + draw.choice(STOPS) * (kind > 0.7)
        parts += [word, draw.choice(BETWEEN)]
    return "".join(parts)


SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"]
UNKNOWN = {"unk_token": "[UNK]"}


@functools.cache
def trained(family):
    """The model of a tokenizer with a few hundred tokens, trained on such texts."""
    same = {"vocab_size": 900, "special_tokens": SPECIAL, "show_progress": False}
    alphabet = P.ByteLevel.alphabet()
    model, splitter, trainer = {
        "words": (models.WordLevel(**UNKNOWN), P.Whitespace(), trainers.WordLevelTrainer(**same)),
        "wordpiece": (
            models.WordPiece(**UNKNOWN, max_input_chars_per_word=100),
            P.BertPreTokenizer(),
            trainers.WordPieceTrainer(**same),
        ),
        "bytes": (
            models.BPE(),
            P.ByteLevel(add_prefix_space=False),
            trainers.BpeTrainer(**same, initial_alphabet=alphabet),
        ),
        # No token of it goes on behind a space, as none of Llama's does.
        "bpe": (models.BPE(**UNKNOWN, fuse_unk=True), P.Metaspace(), trainers.BpeTrainer(**same)),
        "phrases": (models.BPE(**UNKNOWN), None, trainers.BpeTrainer(**same)),
        "characters": (  # no merges
            models.BPE(**UNKNOWN),
            None,
            trainers.BpeTrainer(**same | {"vocab_size": 1}),
        ),
        "unigram": (models.Unigram(), P.Metaspace(), trainers.UnigramTrainer(**same, **UNKNOWN)),
    }[family]
    tokenizer = Tokenizer(model)
    if splitter:
        tokenizer.pre_tokenizer = splitter
    tokenizer.train_from_iterator([text(seed) for seed in range(100)], trainer)
    return tokenizer.model


def made(family, normalizer=None, splitter=None, *tokens):
    tokenizer = Tokenizer(trained(family))
    if normalizer:
        tokenizer.normalizer = normalizer
    if splitter:
        tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([*tokens, AddedToken("<mask>", lstrip=True, normalized=False)])
    return tokenizer


def words(pattern, *, prefix=False):
    split = P.Split(Regex(pattern), "isolated")
    return P.Sequence([split, P.ByteLevel(add_prefix_space=prefix, use_regex=False)])


GPT2, LLAMA3, QWEN2 = text_pieces._WORDS
BERT, MARK, PREPEND = P.BertPreTokenizer(), N.Replace(" ", "▁"), N.Prepend("▁")
BYTES = P.ByteLevel(add_prefix_space=False)
FEW = N.Replace(Regex(" {2,}"), "▁")
COVID = AddedToken("covid")
KINDS = {
    "bert": ("wordpiece", N.BertNormalizer(), BERT, COVID),
    "bert cased": (
        "wordpiece",
        N.BertNormalizer(lowercase=False, handle_chinese_chars=False),
        BERT,
    ),
    "bert, NFD": (
        "wordpiece",
        N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents(), N.Strip(left=False)]),
        BERT,
    ),
    "whitespace": ("wordpiece", N.Lowercase(), P.Whitespace(), COVID),
    "word level": (
        "words",
        N.NFKC(),
        P.Sequence([P.WhitespaceSplit(), P.Digits(individual_digits=True), P.Punctuation()]),
    ),
    "gpt2": ("bytes", None, BYTES, COVID),
    "roberta": ("bytes", None, P.ByteLevel(add_prefix_space=True)),
    "falcon": ("bytes", None, P.Sequence([P.Punctuation("contiguous"), BYTES, P.Digits()])),
    "gpt2, NFD": ("bytes", N.NFD(), BYTES),
    "gpt2 split": ("bytes", None, words(GPT2)),
    "llama3": ("bytes", None, words(LLAMA3)),
    "llama3, prefix": ("bytes", None, words(LLAMA3, prefix=True)),
    "llama3, NFKD": ("bytes", N.NFKD(), words(LLAMA3)),
    "llama3, lower": ("bytes", N.Lowercase(), words(LLAMA3)),
    "qwen2": ("bytes", N.NFC(), words(QWEN2)),
    "albert": (
        "unigram",
        N.Sequence([
            N.Replace("``", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(),
            N.Replace(Regex(" {2,}"), " "),
        ]),
        P.Metaspace(),
    ),
    "t5": ("unigram", N.Sequence([N.Nmt(), N.NFKC(), N.Strip(left=False), FEW]), P.Metaspace()),
    "xlm-roberta": (
        "unigram",
        N.Sequence([N.Nmt(), N.NFKC()]),
        P.Sequence([P.WhitespaceSplit(), P.Metaspace()]),
        COVID,
    ),
    "metaspace first": (
        "unigram",
        N.NFC(),
        P.Sequence([P.WhitespaceSplit(), P.Metaspace(prepend_scheme="first")]),
    ),
    "metaspace never": ("unigram", N.NFC(), P.Metaspace(prepend_scheme="never")),
    "llama": ("bpe", N.Sequence([PREPEND, MARK])),
    "gemma": ("bpe", MARK),
    "mistral": ("bpe", None, P.Metaspace(prepend_scheme="first", split=False)),
    "characters": (
        "characters",
        N.Sequence([
            N.NFKC(),
            N.Lowercase(),
            N.Replace(Regex(text_pieces._OF_SPACES[1]), " "),
            N.Strip(),
        ]),
        None,
        COVID,
    ),
}  # fmt: skip
# Left whole, each for one thing that reaches over any cut.
WHOLE = {
    "the left of each piece is stripped": ("unigram", N.Strip(), P.Metaspace()),
    "an unknown pattern of words": ("bytes", None, words(r"\S+\s\S+|\s+|\S+")),
    "an unknown normalizer": ("wordpiece", N.Replace(Regex("(?<=a) b"), "c"), BERT),
    "spaces become letters": ("wordpiece", MARK, BERT),
    "tokens of several words": ("phrases",),
    "no words, Unigram": ("unigram", N.NFC(), P.Metaspace(split=False)),
    "scripts": ("wordpiece", None, P.Sequence([P.UnicodeScripts(), P.WhitespaceSplit()])),
    "an added phrase": ("wordpiece", None, BERT, AddedToken("a b")),
    "an added word takes the space behind it": ("bytes", None, BYTES, AddedToken("b", rstrip=True)),
    "an added word may take its place": ("bpe", N.Sequence([PREPEND, MARK]), None, COVID),
}


def ids(tokenizer, texts):
    found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [token for each in found for token in each.ids]


def head(task, texts):
    """What the model sees of each text, and whether it is all."""
    seen = task.encode({"text": objects(texts)})
    return [row.tolist() for row in seen["input_ids"]], (seen["lost_tokens"] > 0).tolist()


@pytest.mark.parametrize("kind", [*KINDS, *WHOLE])
@pytest.mark.parametrize("room", [1, 7, 40])
def test_what_a_model_sees_of_a_long_text_is_what_it_would_of_all_of_it(
    kind, room, tmp_path, monkeypatch
):
    path = tmp_path / "tokenizer.json"
    made(*(KINDS | WHOLE)[kind]).save(str(path))
    task = TextClassification(path, ("A", "B"), max_length=room)
    texts = [text(seed, length) for seed, length in enumerate([5, 20, 60, 200, 400] * 4)]
    texts += [sign * 9000 for sign in "a中カ😍!_ \n\u0301\u200bé"] + [
        "",
        " " * 5000 + "a",
        "ab!" * 5000,
    ]
    texts += [" ".join(text(seed)) for seed in range(5)]
    few = head(task, texts)
    monkeypatch.setattr(texts_module, "_MANY", 10**9)
    monkeypatch.setattr(texts_module, "_CHARACTERS", 10**9)
    assert few == head(task, texts)


def sentiment():
    """The built-in model's."""
    folder = Path(mlopsdeploy.__file__).parent / "builtin" / "sentiment"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


@pytest.mark.parametrize("kind", [*KINDS, "sentiment"])
def test_pieces_have_the_tokens_of_the_whole(kind):
    tokenizer = sentiment() if kind == "sentiment" else made(*KINDS[kind])
    cutter = Cutter(tokenizer)
    count = 0
    for seed in range(1000, 1100):
        whole = text(seed)
        cut = list(cutter.pieces(whole, 1))
        count += len(cut)
        assert ids(tokenizer, cut) == ids(tokenizer, [whole]), (seed, cut)
    assert count > 100 * 5


@pytest.mark.parametrize("kind", WHOLE)
def test_what_reaches_over_a_cut_is_left_whole(kind):
    whole = text(1) + " a b a b, c"
    assert list(Cutter(made(*WHOLE[kind])).pieces(whole, 1)) == [whole]


def test_of_a_word_without_end_some_is_enough():
    tokenizer = made(*KINDS["bert cased"])
    whole = "ok [SEP]" + "A7b" * 20_000 + "!" + "c" * 70 + " " + "d" * 4001
    whole += (
        "é" * 5000 + "カ" * 9000 + "?" + " \n" * 5000 + "ok" + " " * 4001 + "[SEP]" + "\t" * 9000
    )
    cut = list(Cutter(tokenizer).pieces(whole, 100))
    assert max(map(len, cut)) < 12_300
    assert sum(map(len, cut)) < 30_000 < len(whole)
    assert ids(tokenizer, cut) == ids(tokenizer, [whole])
    short = made("wordpiece", None, BERT, AddedToken("A7"))
    assert list(Cutter(short).pieces("A7b" * 9000, 100)) == ["A7b" * 9000]
