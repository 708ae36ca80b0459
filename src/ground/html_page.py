"""A page of HTML in one file: its elements, and the page with its style.

Every text is escaped. Figures and files are in the page itself, as base64 in `data:` addresses, so
that a browser needs no network and no second file.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

from src.ground.console import decimals

INCH = 0.0254  # metres

SHORT = 20  # characters of a cell that keeps its line
LONG = 32  # characters of a word that may be broken

Cell = str | int | float | tuple[float, ...] | None  # a tuple has a text of its own

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 1rem/1.5 "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #bbb; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
nav a { margin-right: 1.2em; }
a { color: #0b5394; }
figure { margin: 1.2rem 0; }
img { font-size: 1.35in; max-width: 100%; height: auto; }
table { border-collapse: collapse; max-width: 100%; margin: 1rem 0 1.5rem; font-size: .82rem;
        line-height: 1.35; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: #444; font-size: .85rem; padding-bottom: .3rem; }
caption { font-weight: bold; color: inherit; }
th, td { text-align: left; vertical-align: top; padding: .18rem .6rem .18rem 0; }
thead th { border-bottom: 1.5px solid #1a1a1a; vertical-align: bottom; }
tbody tr { border-bottom: 1px solid #ddd; }
.number { text-align: right; white-space: nowrap; }
td.short { white-space: nowrap; }
.long { overflow-wrap: anywhere; }
pre, blockquote { margin: 1rem 0; padding: .7rem 1rem; background: #f4f4f4;
                  border-left: 3px solid #999; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
@media print {
  @page { margin: 18mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  nav, .file { display: none; }
  h2 { break-after: avoid; }
  figure, table, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  img { font-size: 1in; max-height: 240mm; object-fit: contain; object-position: left; }
}
</style>
</head>
<body>
<h1>$title</h1>
$lead
<nav>$contents</nav>
$sections
</body>
</html>
""")


class Section(NamedTuple):
    """A part of a page."""

    title: str
    elements: Sequence[str]  # of HTML


def page(title: str, lead: Sequence[str], sections: Iterable[Section]) -> str:
    """Return a page of HTML; sections without elements are left out.

    Args:
        lead: the elements between the title and the table of contents.
    """
    shown = [section for section in sections if section.elements]
    links = []
    bodies = []
    for number, section in enumerate(shown, start=1):
        links.append(f'<a href="#part{number}">{escape(section.title)}</a>')
        heading = f'<h2 id="part{number}">{escape(section.title)}</h2>'
        bodies += [heading, *section.elements]
    return PAGE.substitute(
        title=escape(title),
        lead="\n".join(lead),
        contents="\n".join(links),
        sections="\n".join(bodies),
    )


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def quotation(text: str) -> str:
    """Return a paragraph to be copied."""
    return f"<blockquote><p>{escape(text)}</p></blockquote>"


def bullets(texts: Iterable[str]) -> str:
    """Return a list of texts."""
    items = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>\n{items}\n</ul>"


def code(lines: Iterable[str]) -> str:
    """Return lines of code."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table; numbers that are no integers get four decimals, None and NaN empty cells.

    Args:
        rows: of cells, one for each name in the header.
    """
    rows = list(rows)
    are_numbers = [
        any(cell is not None and not isinstance(cell, str) for cell in column)
        for column in zip(*rows, strict=True)
    ]
    lines = [_line("th", header, are_numbers)]
    lines += [_line("td", map(_text, row), are_numbers) for row in rows]
    return (
        f"<table>\n<caption>{escape(title)}</caption>\n"
        f"<thead>{lines[0]}</thead>\n<tbody>\n{chr(10).join(lines[1:])}\n</tbody>\n</table>"
    )


def _line(tag: str, texts: Iterable[str], are_numbers: Iterable[bool]) -> str:
    """Return a line of a table."""
    cells = []
    for text, is_number in zip(texts, are_numbers, strict=True):
        kind = ""
        if is_number:
            kind = ' class="number"'
        elif len(text) <= SHORT:
            kind = ' class="short"'
        elif any(len(word) > LONG for word in text.split()):
            kind = ' class="long"'
        cells.append(f"<{tag}{kind}>{escape(text)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _text(cell: Cell) -> str:
    """Return the text of a cell."""
    if cell is None or cell != cell:  # NaN
        return ""
    return decimals(cell) if isinstance(cell, float) else str(cell)


def figure(image: Path, caption: str) -> str:
    """Return a figure from a PNG: on paper in its own size, on the screen a little larger.

    The second paragraph of its caption, which defines terms, opens by a click. An em of the width of
    the image is an inch of the figure; the style says how long that is.
    """
    content = image.read_bytes()
    source = _data(content, "image/png")
    text, _, definitions = escape(caption).partition("\n\n")
    terms = ""
    if definitions:
        terms = f"<details><summary>terms</summary>{definitions}</details>"
    return (
        f'<figure>\n<img style="width: {_width(content):.2f}em" alt="{text}" src="{source}">\n'
        f"<figcaption>{text}{terms}</figcaption>\n</figure>"
    )


def _width(png: bytes) -> float:
    """Return the width of a PNG in inches, from its numbers of pixels and of pixels a metre."""
    pixels = int.from_bytes(png[16:20], "big")
    place = png.index(b"pHYs") + 4
    return pixels / int.from_bytes(png[place : place + 4], "big") / INCH


def file(name: str, content: bytes, text: str) -> str:
    """Return a link by which a browser saves a file embedded in the page."""
    address = _data(content, "application/octet-stream")
    return f'<p class="file"><a download="{escape(name)}" href="{address}">{escape(text)}</a></p>'


def _data(content: bytes, kind: str) -> str:
    """Return the content of a file as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
