"""Where a text may be cut so that its pieces have the tokens of the whole.

A tokenizer takes some 500 bytes for each token of what it is given: gigabytes for a text of some
megabytes. Of pieces it needs no more than for one of them, if nothing that it does reaches over a
cut: no normalizer, no word of its pre-tokenizer, no added token. What is known of each, by the name
that `tokenizer.json` gives it, stands here. With any other, and where a text has no such place, the
text stays whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

Step = Mapping[str, Any]
Places = frozenset[str]

# Letters and digits that every normalizer leaves letters and digits, neither removed nor composed
# with what follows: one stands on the left of each cut, but of those between two marks.
_LETTER = "0-9A-Za-zÀ-ÖØ-öø-įı-ľŁ-ňŊ-žΆΈ-ΊΌΎ-ΡΣ-ώЀ-ҁא-תء-غف-يअ-हก-ฮ가-힣ぁ-ゔァ-ヴ"
_IDEOGRAPH = "一-鿋"
_SOLID = _LETTER + _IDEOGRAPH
_MARK = r"!-/:-@\[-`{-~"
_AT = {
    "space": rf"(?<=[{_SOLID}])(?= [{_SOLID}])",
    "line": rf"(?<=[{_SOLID}])(?=\n[{_SOLID}])",
    "stop": rf"(?<=[{_SOLID}])(?=[.,;:!?。、，！？；：])",
    "ideograph": rf"(?<=[{_IDEOGRAPH}])(?=[{_IDEOGRAPH}])",
    "letter": rf"(?<=[{_SOLID}])(?=[{_SOLID}])",
    "mark": rf"(?<=[{_MARK}])(?=[{_MARK}])",
}
_ALL = Places(_AT)
_NONE = Places()
_WITHIN = Places({"letter", "mark"})  # words of all but a few tokenizers
_USUAL = _ALL - _WITHIN
_WHITE = Places({"space", "line"})

# The words of GPT-2, Llama 3 (cl100k) and Qwen 2: none goes on behind a letter or digit with a
# space, a line's end or a stop, and none depends on what is left of it.
_WORDS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
# What becomes one space: all that is white, and what has no width.
_OF_SPACES = (r"\s+", r"[\s\u200b-\u200f\ufe0f]+")
# Of a word, or of nothing, without end only so much of either side: see `_unknown_beyond`.
_SIDE = 2000
_RUN = re.compile(
    rf"(?<![{_LETTER}])[{_LETTER}]{{{2 * _SIDE + 1},}}|(?<!\s)[ \t\r\n]{{{2 * _SIDE + 1},}}"
)


class Cutter:
    """Cuts texts for one tokenizer; reads what it is made of, which may take a second, once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spec = json.loads(tokenizer.to_str())
        normalizers = _steps(spec["normalizer"], "normalizers")
        splitters = _steps(spec["pre_tokenizer"], "pretokenizers")
        self._cut = _cut(tokenizer, spec, normalizers, splitters)
        self._shortens = _unknown_beyond(spec, normalizers, splitters)

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """A text in pieces of `size` characters, each up to the next place where it may be cut.

        The tokens of all of them, special tokens left out, are those of the text.
        """
        start = 0
        while start < len(text):
            found = None
            if self._cut and len(text) - start > size:
                found = self._cut.search(text, start + size)
            piece = text[start : found.start() if found else len(text)]
            if self._shortens and len(piece) > 2 * size:
                piece = _RUN.sub(lambda run: run[0][:_SIDE] + run[0][-_SIDE:], piece)
            yield piece
            start = found.end() if found else len(text)


def _steps(spec: Step | None, parts: str) -> list[Step]:
    if spec is None:
        return []
    if spec["type"] == "Sequence":
        return [step for part in spec[parts] for step in _steps(part, parts)]
    return [spec]


def _cut(
    tokenizer: Tokenizer, spec: Step, normalizers: list[Step], splitters: list[Step]
) -> re.Pattern[str] | None:
    """What lies between two pieces and is in neither, mostly nothing."""
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    spaces = _WHITE if normalize("a\nb") == normalize("a b") else Places({"space"})
    passed, split = _ALL, _NONE
    for step in normalizers:
        passed &= _normalized(step)
    for place, step in enumerate(splitters, 1):
        here, there = _split(step, spaces, last=place == len(splitters))
        passed, split = passed & here, split | there
    if any(step.get("handle_chinese_chars") for step in normalizers) and split >= _WHITE:
        split |= {"ideograph"}  # spaces are put around them
    marked = any(_marks_spaces(step) for step in normalizers)
    prepended = any(step["type"] == "Prepend" for step in normalizers)
    if not marked and not prepended and not splitters and _joins_nothing(spec["model"]):
        split = _ALL
    patterns = []
    if not marked and not prepended:
        patterns = [_either(passed & split), _either(passed & split & _USUAL)]
    if "space" in passed and _words_stay_apart(spec["model"], splitters, marked=marked):
        # What is prepended to each piece stands in place of its space.
        patterns.append(rf"(?<=[{_SOLID}]) (?=[{_SOLID}])" if prepended else _AT["space"])
    for cut in map(re.compile, filter(None, patterns)):
        tokens = spec["added_tokens"]
        if not any(_crosses(cut, token, normalize, dropped=prepended) for token in tokens):
            return cut
    return None


def _either(places: Places) -> str:
    return "|".join(_AT[place] for place in sorted(places))


def _marks_spaces(step: Step) -> bool:
    return step == {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def _normalized(step: Step) -> Places:
    """Where what a normalizer makes of two pieces is what it makes of both together."""
    match step["type"]:
        case "BertNormalizer":  # puts spaces around ideographs
            return _ALL - {"letter"}
        case "Lowercase" | "StripAccents" | "NFC" | "NFKC" | "Nmt":
            return _ALL
        case "Precompiled":  # of SentencePiece: NFKC, mostly
            return _USUAL
        case "NFD" | "NFKD":  # a letter's accent would stand right of it
            return Places({"space", "ideograph"})
        case "Strip":
            return _ALL - _WHITE if step["strip_left"] else _ALL
        case "Prepend":
            return Places({"space"}) if step["prepend"] == "▁" else _NONE
        case "Replace":
            return _replaced(step)
    return _NONE


def _replaced(step: Step) -> Places:
    pattern, content = step["pattern"], step["content"]
    if _marks_spaces(step):
        return Places({"space"})
    spaces = pattern.get("Regex") in _OF_SPACES and content == " "
    if spaces or pattern.get("Regex") == " {2,}":
        return _ALL - {"ideograph"}  # which may have spaces put around them
    literal = pattern.get("String")
    harmless = literal and not re.search(rf"[{_SOLID}\s.,;:!?。、，！？；：]", literal)
    return _USUAL - {"ideograph"} if harmless else _NONE


def _split(step: Step, spaces: Places, *, last: bool) -> tuple[Places, Places]:
    """Where a pre-tokenizer cuts pieces as it does both together, and where it always cuts.

    Args:
        step: as `tokenizer.json` has it.
        spaces: where it finds a space.
        last: whether no other follows, which would find spaces written in another way.
    """
    between = _USUAL - {"ideograph"}
    match step["type"]:
        case "BertPreTokenizer":  # each mark is a word
            return _ALL - {"letter"}, between | {"mark"}
        case "Whitespace":
            return _USUAL, between
        case "WhitespaceSplit":
            return _USUAL, _WHITE
        case "Digits":
            return _USUAL, _NONE
        case "Punctuation":
            return _USUAL - {"stop"}, _NONE
        case "Split" if step["pattern"].get("Regex") in _WORDS:
            whole = (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))
            return (_USUAL, between) if whole else (_NONE, _NONE)
        case "ByteLevel" if step["use_regex"] or last:
            # A piece that starts with a space gets no other.
            passed = spaces if step["add_prefix_space"] else _USUAL
            return passed, between if step["use_regex"] else _NONE
        case "Metaspace" if step["replacement"] == "▁" and (step["split"] or last):
            return spaces, spaces if step["split"] else _NONE
    return _NONE, _NONE


def _words_stay_apart(model: Step, splitters: list[Step], *, marked: bool) -> bool:
    """Whether no token goes on behind a space, though nothing splits there: Llama, Mistral.

    No merge reaches over such a place then, and those on either side don't depend on the other.
    """
    kinds = [step["type"] for step in splitters]
    if kinds not in ([], ["ByteLevel"], ["Metaspace"]) or (marked and kinds):
        return False
    space = "Ġ" if kinds == ["ByteLevel"] else "▁" if marked or kinds else " "
    odd = ("dropout", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")
    return (
        model["type"] == "BPE"
        and not any(model[name] for name in odd)
        and space in model["vocab"]
        and not any(space in token.lstrip(space) for token in model["vocab"])
    )


def _joins_nothing(model: Step) -> bool:
    """Whether each character is a token of its own, as in models of Chinese."""
    odd = ("fuse_unk", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")
    return model["type"] == "BPE" and not model["merges"] and not any(model[name] for name in odd)


def _crosses(
    cut: re.Pattern[str], token: Step, normalize: Callable[[str], str], *, dropped: bool
) -> bool:
    """Whether an added token may lie on both sides of a cut, or change by what is beyond one."""
    solid = re.compile(f"[{_SOLID}]")
    for written in (token["content"], normalize(token["content"])):
        plain = written.replace("▁", " ")
        starts, ends = solid.match(plain), solid.match(plain[-1:])
        if cut.search(plain + "a") or (dropped and starts):
            return True
        if (starts or ends) and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            return True
    return False


def _unknown_beyond(spec: Step, normalizers: list[Step], splitters: list[Step]) -> bool:
    """Whether all words of more than 1000 letters are the same token, however many they have."""
    model = spec["model"]
    plain = {"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"}
    return (
        model["type"] == "WordPiece"
        and model["max_input_chars_per_word"] <= 1000
        and {step["type"] for step in normalizers} <= plain
        and {step["type"] for step in splitters}
        <= {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
        and not any(
            re.search(f"^([{_LETTER}]+|\\s+)$", token["content"]) for token in spec["added_tokens"]
        )
    )
