"""Write docs/files.md: what `batch` makes of files as people have them, by running it on each.

python docs/files.py
"""
# ruff: noqa: E501  # messages as they stood

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import chdir
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from mlopsdeploy import MlopsDeployError, score_file
from mlopsdeploy.data.matching import reading, scored

PAGE = Path(__file__).parent / "files.md"
GOOD = ["I love this phone, it works like a charm", "Great product and fast delivery, very happy"]
BAD = ["Terrible: it broke on day two and nobody answers", "A waste of money, do not buy this"]
TEXTS = [f"{text} (order {order})" for order in range(10) for text in (*GOOD, *BAD)]
SHORT = ["Good", "Nice app", "ok", "Bad", "Love it", "Worst"]


class Kind(NamedTuple):
    """A kind of file: its name and content, what became of it before, and how it is run."""

    title: str
    name: str
    content: bytes | str
    before: str
    settings: Mapping[str, Any] = MappingProxyType({})


def lines(head: str, row: str, *, end: str = "\n", rows: int = 40) -> str:
    """A file of a header and rows: `row` is formatted with `n` and `text`."""
    body = [row.format(n=n, text=TEXTS[n % 40], short=SHORT[n % 6]) for n in range(rows)]
    return end.join([*([head] if head else []), *body]) + end


PLAIN = lines("id,review", '{n},"{text}"')
COMMAS = lines(
    "Time;" + ";".join(f"V{at}" for at in range(1, 29)) + ";Amount",
    "{n};" + "-0,5;1,25;" * 14 + "1.003,{n}",
)
OBJECTS = [
    {"reviewerID": f"A{n}", "reviewText": text, "overall": 5.0} for n, text in enumerate(TEXTS)
]


def kinds() -> Iterator[tuple[str, list[Kind]]]:
    """All kinds, by what is odd about them."""
    stray = PLAIN.replace('7,"' + TEXTS[7] + '"', '7,"Love" is what I feel for this one')
    swallows = lines("id,review,stars", "{n},{text},{n}").replace(",", ";").replace("; ", ", ")
    swallows = swallows.replace(f"9;{TEXTS[9]}", '9;"Great phone, it broke', 1)
    swallows = swallows.replace(f"19;{TEXTS[19]}", '19;"Worst phone ever', 1)
    yield (
        "Quotes",
        [
            Kind("text behind a closing quote", "stray.csv", stray, "scores `review`; 40 rows"),
            Kind(
                "a quote that swallows rows up to the next one",
                "swallows.csv",
                swallows,
                "scores `review`; 30 rows",
            ),
            Kind(
                "the same, read without quotes",
                "swallows.csv",
                swallows,
                "no such setting",
                {"quote": "none"},
            ),
            Kind(
                "a tab-separated export that quotes nothing",
                "amazon.tsv",
                lines("id\treview_body\tstars", "{n}\t{text}\t5")
                .replace(TEXTS[8], '"Must have" for all')
                .replace(TEXTS[9], '"I hate it'),
                "scores `review_body`; 40 rows, 1 set aside",
            ),
            Kind(
                "a quote that is never closed",
                "open.csv",
                PLAIN.replace('31,"' + TEXTS[31] + '"', '31,"' + TEXTS[31]),
                "scores `review`; 39 rows, 1 set aside",
            ),
            Kind(
                "quotes escaped by a backslash",
                "backslash.csv",
                lines("id,review,stars", '{n},"{text} and he said \\"fine, really\\" to me",4'),
                "`backslash.csv: no column reads like text; there are: 'id', 'review' and 'stars'; say --text-column NAME`",
            ),
            Kind(
                "a space before a quote",
                "space.csv",
                lines("id, review, stars", '{n}, "{text}", 4'),
                "`30 of 40 rows are bad, more than --max-errors allows; the first: space.csv: line 2: has 4 fields, the header has 3`",
            ),
            Kind(
                "reviews of several lines",
                "multiline.csv",
                lines("id,review", '{n},"{text}\n\nYours, N."'),
                "scores `review`; 40 rows",
            ),
        ],
    )
    yield (
        "Headers and lines",
        [
            Kind(
                "no header",
                "headerless.csv",
                lines("", '"0","{n}","Mon Apr 06","{text}"'),
                "`headerless.csv: column '0' is named twice`",
            ),
            Kind(
                "the same, said",
                "headerless.csv",
                lines("", '"0","{n}","Mon Apr 06","{text}"'),
                "no such setting",
                {"header": False},
            ),
            Kind(
                "a review a line",
                "reviews.txt",
                lines("", "{text}"),
                "`10 of 39 rows are bad, more than --max-errors allows; the first: reviews.txt: line 3: has 1 field, the header has 2`",
            ),
            Kind(
                "the same, said",
                "reviews.txt",
                lines("", "{text}"),
                "no such setting",
                {"delimiter": "|", "header": False},
            ),
            Kind(
                "rows with names that have none, as R writes them",
                "rownames.csv",
                lines("id,review", '"{n}",{n},"{text}"'),
                "`rownames.csv: no column reads like text; there are: 'id' and 'review'; say --text-column NAME`",
            ),
            Kind(
                "the same, said",
                "rownames.csv",
                lines("id,review", '"{n}",{n},"{text}"'),
                "no such setting",
                {"skip_lines": 1, "header": False},
            ),
            Kind(
                "lines above the header, totals below",
                "preamble.csv",
                "Review export\nPeriod: January\n\n"
                + lines("id,review,stars", '{n},"{text}",4')
                + "Totals:,,\n",
                "`42 of 43 rows are bad, more than --max-errors allows; the first: preamble.csv: line 4: has 3 fields, the header has 1`",
            ),
            Kind(
                "the same, said",
                "preamble.csv",
                "Review export\nPeriod: January\n\n"
                + lines("id,review,stars", '{n},"{text}",4')
                + "Totals:,,\n",
                "no such setting",
                {"skip_lines": 3, "max_errors": "5%"},
            ),
            Kind(
                "Excel's `sep=;`",
                "sep.csv",
                "sep=;\n" + lines("id;review;price", '{n};"{text}";{n},50'),
                "`sep.csv: no column reads like text; there are: 'sep=' and ''; say --text-column NAME`",
            ),
            Kind(
                "commas in a header of semicolons",
                "semicolons.csv",
                lines(
                    "Nr;Bewertung, Text;Datum, Uhrzeit;Preis",
                    '{n};"{text}";01.02.2026 10:00;{n},50',
                ),
                "scores `Bewertung, Text`; 40 rows",
            ),
            Kind(
                "a column name that stands twice",
                "twice.csv",
                lines("id,review,date,date", '{n},"{text}",2026-01-01,2026-01-02'),
                "`twice.csv: column 'date' is named twice`",
            ),
            Kind(
                "empty cells in the header",
                "unnamed.csv",
                lines("id,review,,", '{n},"{text}",,'),
                "`unnamed.csv: column '' is named twice`",
            ),
            Kind(
                "a delimiter at the end of rows only",
                "trailing.csv",
                lines("id,review", '{n},"{text}",'),
                "`trailing.csv: no column reads like text; there are: 'id' and 'review'; say --text-column NAME`",
            ),
            Kind(
                "old Mac line ends",
                "mac.csv",
                lines("id,review", '{n},"{text}"', end="\r"),
                "`mac.csv: has a header but no rows`",
            ),
            Kind(
                "an unfinished last line, the file complete",
                "unended.csv",
                PLAIN.rstrip("\n"),
                "scores `review`; 40 rows",
            ),
            Kind(
                "rows of other lengths",
                "ragged.csv",
                PLAIN + '40,"fine",surplus\n',
                "scores `review`; 41 rows, 1 set aside",
                {"max_errors": "5%"},
            ),
        ],
    )
    yield (
        "Encodings and bytes",
        [
            Kind(
                "UTF-16 with a byte order mark",
                "utf16.csv",
                PLAIN.encode("utf-16"),
                "scores `review`; 40 rows",
            ),
            Kind(
                "UTF-16 without one",
                "utf16-bare.csv",
                PLAIN.encode("utf-16-le"),
                "`utf16-bare.csv: this looks like a binary file, not CSV`",
            ),
            Kind(
                "Windows-1252",
                "cp1252.csv",
                lines("id,review", '{n},"{text} café"').encode("cp1252"),
                "`cp1252.csv: no column reads like text; there are: 'id' and 'review'; say --text-column NAME`",
            ),
            Kind(
                "Windows-1252 in the header only",
                "header1252.csv",
                lines("id,review,prénom", '{n},"{text}",A').encode("cp1252"),
                "a traceback (UnicodeDecodeError)",
            ),
            Kind(
                "a NUL in a row",
                "nul.csv",
                PLAIN.replace("(order 2)", "(order\0 2)", 1),
                "`nul.csv: this looks like a binary file, not CSV`",
            ),
            Kind(
                "a tail of NULs, as a crash leaves it",
                "nul-tail.csv",
                PLAIN + "\0" * 4096,
                "`nul-tail.csv: this looks like a binary file, not CSV`",
            ),
        ],
    )
    yield (
        "Columns",
        [
            Kind(
                "short reviews beside long replies",
                "play.csv",
                lines(
                    "reviewId,userName,content,replyContent",
                    '{n},u{n},{short},"Hello u{n}, thank you for your kind feedback"',
                ),
                "scores `replyContent`; 40 rows",
            ),
            Kind(
                "short reviews beside long names",
                "phones.csv",
                lines(
                    "product_name,rating,review",
                    '"SAMSUNG Galaxy {n} Ultra 5G (Black, 256 GB) with 12 GB RAM",4,{short}',
                ),
                "scores `product_name`; 40 rows",
            ),
            Kind(
                "two texts, neither named as one",
                "two.csv",
                lines("a,b", '"{text}","{text} once more"'),
                "`two.csv: which column is the text, 'a' or 'b'? say --text-column NAME`",
            ),
            Kind(
                "two texts as one",
                "two.csv",
                lines("a,b", '"{text}","{text} once more"'),
                "`two.csv: no column 'a,b'; there are: 'a' and 'b'`",
                {"text_column": "a,b"},
            ),
            Kind(
                "`label` and `score` are there already",
                "scored.csv",
                lines("label,score,notes,more", '5,4,"{text}","{text} again"'),
                "`scored.csv: which column is the text, 'notes' or 'more'? say --text-column NAME`",
            ),
            Kind(
                "decimal commas in a model's numbers",
                "commas.csv",
                COMMAS,
                "`40 of 40 rows are bad, more than --max-errors allows; the first: commas.csv: line 2: column 'V1' holds no number`",
                {"model": "fraud"},
            ),
            Kind(
                "the same, said",
                "commas.csv",
                COMMAS,
                "no such setting",
                {"model": "fraud", "numbers": "1.234,56"},
            ),
            Kind(
                "numbers that are written in two ways",
                "marks.csv",
                COMMAS.replace("1.003,", "1,003."),
                "`40 of 40 rows are bad, more than --max-errors allows; the first: marks.csv: line 2: column 'V1' holds no number`",
                {"model": "fraud"},
            ),
            Kind(
                "a column of numbers alone",
                "prices.csv",
                lines("price", "{n}.5"),
                "scores `price`; 40 rows",
            ),
        ],
    )
    array = json.dumps(OBJECTS, indent=1)
    nested = "".join(
        json.dumps({"id": n, "review": {"text": text}}) + "\n" for n, text in enumerate(TEXTS)
    )
    yield (
        "Other formats",
        [
            Kind(
                "JSON Lines called .json",
                "reviews.json",
                "".join(json.dumps(row) + "\n" for row in OBJECTS),
                "`reviews.predictions.json: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "a JSON array",
                "array.json",
                array,
                "`array.predictions.json: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "a list inside of a JSON object",
                "inside.json",
                json.dumps({"page": 1, "reviews": OBJECTS}),
                "`inside.predictions.json: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "texts inside of JSON objects",
                "nested.jsonl",
                nested,
                "`nested.jsonl: no column 'review.text'; there are: 'id' and 'review'`",
                {"text_column": "review.text"},
            ),
            Kind("gzip", "r.csv.gz", gzip.compress(PLAIN.encode()), "scores `review`; 40 rows"),
            Kind(
                "gzip by its content only",
                "packed.csv",
                gzip.compress(PLAIN.encode()),
                "scores `review`; 40 rows",
            ),
            Kind("gzip by its name only", "plain.csv.gz", PLAIN, "scores `review`; 40 rows"),
            Kind(
                "bzip2",
                "r.csv.bz2",
                bz2.compress(PLAIN.encode()),
                "`r.csv.predictions.bz2: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "xz",
                "r.csv.xz",
                lzma.compress(PLAIN.encode()),
                "`r.csv.predictions.xz: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "zstd",
                "r.csv.zst",
                pa.compress(PLAIN.encode(), "zstd", asbytes=True),
                "`r.csv.predictions.zst: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "zip of one file",
                "r.csv.zip",
                zipped({"r.csv": PLAIN}),
                "`r.csv.predictions.zip: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "zip of several",
                "several.zip",
                zipped({"a.csv": PLAIN, "b.csv": PLAIN}),
                "`several.predictions.zip: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "Parquet with times of nanoseconds and zones",
                "times.parquet",
                parquet(),
                "scores `review`; 40 rows",
            ),
            Kind(
                "a name that says nothing",
                "reviews.dat",
                PLAIN,
                "`reviews.predictions.dat: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)`",
            ),
            Kind(
                "a picture called .csv",
                "picture.csv",
                b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8,
                "`picture.csv: this looks like a binary file, not CSV`",
            ),
            Kind("nothing", "empty.csv", "", "`empty.csv: the file is empty`"),
        ],
    )


def zipped(files: dict[str, str]) -> bytes:
    """A zip archive of texts by name."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as into:
        for name, content in files.items():
            into.writestr(name, content)
    return archive.getvalue()


def parquet() -> bytes:
    """Reviews beside times, dates and a struct, which nobody asked for."""
    times = pa.array([datetime(2026, 1, 1 + n % 28) for n in range(40)], pa.timestamp("ns", "UTC"))
    days = pa.array([date(2026, 1, 1 + n % 28) for n in range(40)])
    user = pa.array([{"name": f"u{n}"} for n in range(40)])
    file = io.BytesIO()
    table = pa.table({"id": range(40), "at": times, "day": days, "user": user, "review": TEXTS})
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def outcome(kind: Kind) -> str:
    """What `batch` makes of it now, in the current folder."""
    content = kind.content.encode() if isinstance(kind.content, str) else kind.content
    Path(kind.name).write_bytes(content)
    try:
        done = score_file(kind.name, **kind.settings)
    except MlopsDeployError as error:
        return f"`{str(error).partition('; see ')[0]}`"
    parts = [f"scores `{scored(done.summary['columns'])}`; {done.rows} rows"]
    if done.bad_rows:
        parts[0] += f", {done.bad_rows} set aside"
        parts.append(f"`{done.summary['first_failed']}`")
    read = list(reading(done.summary["read"]))
    return "; ".join([*parts, *([f"read as {', '.join(read)}"] if read[1:] else [])])


def page() -> str:
    """The page, made anew."""
    parts = [
        "# Files as people have them",
        "What `mlopsdeploy batch` makes of each kind of file: what is scored, what is set aside, and "
        "where a guess could be wrong, which question it asks. Every line is what a run on a file of "
        "40 rows gives, today and before these kinds were looked at (November 2026). "
        "`python docs/files.py` writes this page.",
    ]
    for heading, these in kinds():
        parts += [f"## {heading}", "| a file with | before | now |\n|---|---|---|"]
        for kind in these:
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                now = outcome(kind)
            flags = ", ".join(f"`{name}={value!r}`" for name, value in kind.settings.items())
            title = f"{kind.title} ({flags})" if flags else kind.title
            parts[-1] += (
                "\n"
                + " | ".join(
                    ["", *(cell.replace("|", "\\|") for cell in (title, kind.before, now)), ""]
                ).strip()
            )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
