"""Workbooks that no package at hand writes: one sheet of texts and numbers, by the standards."""

import struct
import zipfile

SHEET = "Reviews"
_ODF = "urn:oasis:names:tc:opendocument:xmlns"
_XML = "http://schemas.openxmlformats.org"


def write(path, rows):
    """A workbook of some rows, in the format that its name says; returns its path."""
    {".ods": _ods, ".xls": _xls, ".xlsb": _xlsb}[path.suffix](path, rows)
    return path


def _ods(path, rows):
    """OpenDocument, the necessary parts."""

    def cell(value):
        if isinstance(value, str):
            kind, content = 'value-type="string"', f"<text:p>{value}</text:p>"
        else:
            shown = str(value).replace(".", ",")  # as LibreOffice shows it in most of Europe
            kind = f'value-type="float" office:value="{value}"'
            content = f"<text:p>{shown}</text:p>"
        return f"<table:table-cell office:{kind}>{content}</table:table-cell>"

    lines = (f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in rows)
    content = f'<table:table table:name="{SHEET}">{"".join(lines)}</table:table>'
    for tag in ("spreadsheet", "body"):
        content = f"<office:{tag}>{content}</office:{tag}>"
    spaces = " ".join(f'xmlns:{one}="{_ODF}:{one}:1.0"' for one in ("office", "table", "text"))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        manifest = f'<manifest:manifest xmlns:manifest="{_ODF}:manifest:1.0"/>'
        file.writestr("META-INF/manifest.xml", manifest)
        root = "office:document-content"
        file.writestr("content.xml", f"<{root} {spaces}>{content}</{root}>")


def _xls(path, rows):
    """Excel 97: BIFF8 records (MS-XLS), the only stream of a compound file (MS-CFB)."""

    def record(kind, data=b""):
        return struct.pack("<HH", kind, len(data)) + data

    def text(value, length):
        return struct.pack(f"<{length}B", len(value), 0) + value.encode("latin-1")

    def cell(row, column, value):
        at = struct.pack("<HHH", row, column, 0)
        if isinstance(value, str):
            return record(0x204, at + text(value, "H"))
        return record(0x203, at + struct.pack("<d", value))

    first, begin = (
        record(0x809, struct.pack("<HHHHII", 0x600, kind, 0, 1997, 0, 0)) for kind in (5, 16)
    )
    cells = [cell(r, c, value) for r, row in enumerate(rows) for c, value in enumerate(row)]
    end, name = record(0x0A), text(SHEET, "B")
    start = len(first) + len(record(0x85, bytes(6) + name)) + len(end)
    sheets = record(0x85, struct.pack("<IH", start, 0) + name)
    _compound(path, first + sheets + end + begin + b"".join(cells) + end)


def _compound(path, stream):
    stream = stream.ljust(4096, b"\0")  # a shorter one is stored in another way
    sectors = -(-len(stream) // 512)
    nobody, end = -1, -2
    table = [-3, end, *range(3, sectors + 2), end]
    head = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16)
    head += struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<10i", 0, 1, 1, 0, 4096, end, 0, end, 0, 0)

    def entry(name, kind, child, start, size):
        name = name.encode("utf-16-le")
        links = struct.pack("<HBB3i", len(name) + 2, kind, 1, nobody, nobody, child)
        return name.ljust(64, b"\0") + links + bytes(36) + struct.pack("<iQ", start, size)

    entries = entry("Root Entry", 5, 1, end, 0) + entry("Workbook", 2, nobody, 2, len(stream))
    path.write_bytes(
        head.ljust(512, b"\xff")
        + struct.pack(f"<{len(table)}i", *table).ljust(512, b"\xff")
        + entries.ljust(512, b"\0")
        + stream.ljust(sectors * 512, b"\0")
    )


def _xlsb(path, rows):
    """Excel's binary workbook (MS-XLSB)."""

    def number(value):
        more = [value >> 7] if value > 127 else []
        return bytes([value & 127 | 128 * bool(more), *more])

    def record(kind, data=b""):
        return number(kind) + number(len(data)) + data

    def text(value):
        return struct.pack("<I", len(value)) + value.encode("utf-16-le")

    def cell(column, value):
        at = struct.pack("<II", column, 0)
        if isinstance(value, str):
            return record(6, at + text(value))
        return record(5, at + struct.pack("<d", value))

    cells = b""
    for place, row in enumerate(rows):
        cells += record(0, struct.pack("<I21x", place))
        cells += b"".join(cell(column, value) for column, value in enumerate(row))
    size = record(0x94, struct.pack("<4I", 0, len(rows) - 1, 0, len(rows[0]) - 1))
    sheet = record(0x81) + size + record(0x91) + cells + record(0x92) + record(0x82)
    named = record(0x9C, struct.pack("<II", 0, 1) + text("rId1") + text(SHEET))
    book = record(0x83) + record(0x8F) + named + record(0x90) + record(0x84)
    kind = f"{_XML}/officeDocument/2006/relationships/worksheet"
    part = f'<Relationship Id="rId1" Type="{kind}" Target="worksheets/sheet1.bin"/>'
    parts = f'<Relationships xmlns="{_XML}/package/2006/relationships">{part}</Relationships>'
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/_rels/workbook.bin.rels", parts)
        file.writestr("xl/workbook.bin", book)
        file.writestr("xl/worksheets/sheet1.bin", sheet)
