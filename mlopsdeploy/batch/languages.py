"""What people are told of the languages of a run's texts: who read them, and what nobody did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlopsdeploy.core.languages import UNKNOWN
from mlopsdeploy.core.model import counted


def language_facts(
    summary: Mapping[str, Any], languages: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Lines with their names, none where there is nothing to say.

    Args:
        summary: `unread` and `read_by` of a run, or of a sample.
        languages: those that the model reads.
    """
    if read_by := summary.get("read_by"):
        yield "read by", counted(read_by)
    if unread := summary.get("unread"):
        yield "unread", unread_words(unread, languages)


def unread_words(unread: Mapping[str, int], languages: Sequence[str]) -> str:
    """`12 de, 3 ar (the model reads en); 1 mostly of unknown tokens`."""
    found = {language: count for language, count in unread.items() if language != UNKNOWN}
    words = [f"{counted(found)} (the model reads {', '.join(languages)})"] if found else []
    if unknown := unread.get(UNKNOWN):
        words.append(f"{unknown:,} mostly of unknown tokens")
    return "; ".join(words)
