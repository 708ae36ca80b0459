"""One page of HTML with the verdicts of an experiment, their figures, and how it was made.

Figures and files are in the page itself, as base64 in `data:` addresses, so that a browser needs no
network and no second file. Every text is escaped.
"""

import base64
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from src.core.grouping import grouped
from src.figures import words
from src.figures.pages import CAPTION
from src.figures.sections import Section, by_groups, parts_of, sections_of
from src.figures.words import Table
from src.results.matrices import mean_of
from src.results.network_names import SHORT
from src.results.similarity_rows import column_of
from src.results.spec import RECORDS, SPLITS
from src.results.verdict_rows import AUROC, VerdictRow
from src.verdict import SIMILAR, Limits

ESTIMATES = ("accuracy_drop", "skill_at_end", "skill")

# Figures are as wide as on paper, times 1.35 on screens: their text of 7 points has 12 pixels
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 1rem/1.5 "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #bbb; }
p, figcaption { max-width: 48rem; overflow-wrap: anywhere; }
caption, .conclusion { font-weight: bold; text-align: left; }
.wide { overflow-x: auto; margin: 1rem 0; }
figure { margin: 0; }
img { font-size: 1.35in; }
table, figcaption, pre { font-size: .85rem; border-collapse: collapse; }
table { font-variant-numeric: tabular-nums; }
th, td { text-align: left; white-space: nowrap; padding: .2rem 1rem .2rem 0; }
thead th { border-bottom: 1.5px solid #1a1a1a; }
tbody th { font-weight: normal; }
tbody tr { border-bottom: 1px solid #ddd; }
pre { padding: .7rem 1rem; background: #f4f4f4; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  @page { margin: 18mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  .file { display: none; }
  .wide { overflow: visible; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  table, pre { font-size: 8pt; }
  th, td { white-space: normal; overflow-wrap: anywhere; }
  img { font-size: 1in; max-width: 100%; max-height: 240mm; object-fit: contain; }
}
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


def page(title: str, parts: Iterable[str]) -> str:
    """Return the page of its parts in HTML."""
    return PAGE.substitute(title=escape(title), body="\n".join(filter(None, parts)))


def section(title: str, *parts: str) -> str:
    """Return parts below a heading; "" if they are all empty."""
    body = "\n".join(filter(None, parts))
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def paragraphs(texts: Iterable[str], *, kind: str = "") -> str:
    """Return a paragraph for each text."""
    return "\n".join(f'<p class="{kind}">{escape(text)}</p>' for text in texts)


def terms(limits: Limits) -> str:
    """Return the meaning of each verdict, and its rule."""
    lines = [
        f"<p><b>{escape(verdict)}</b>: {escape(meaning)}.</p>"
        for verdict, meaning in words.meanings(limits).items()
    ]
    return "\n".join([*lines, paragraphs([words.SKILL, words.certainty(limits), words.CAUTION])])


def table(content: Table) -> str:
    """Return a table, which scrolls by itself; "" without lines. The first cell of a line heads
    it."""
    if not content.lines:
        return ""
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in content.header)
    lines = []
    for label, *cells in content.lines:
        line = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{line}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="wide" tabindex="0"><table>\n<caption>{escape(content.title)}</caption>\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def figures(images: Iterable[Path], result: str = "") -> str:
    """Return images (PNG) with the captions in their metadata, in their order.

    Args:
        result: what the first image says, which stands above it; others say the first sentence of
            their captions.
    """
    from PIL import Image

    parts = []
    for path in sorted(images, key=lambda path: (len(path.name), path.name)):
        with Image.open(path) as image:
            caption = image.text.get(CAPTION, "")
            inches = image.width / image.info["dpi"][0]
        said = result or caption.partition(". ")[0]
        result = ""
        parts.append(
            f'<figure>\n<div class="wide" tabindex="0"><img style="width: {inches:.2f}em" '
            f'alt="{escape(said)}" src="{_data(path.read_bytes(), "image/png")}"></div>\n'
            f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
        )
    return "\n".join(parts)


def _data(content: bytes, kind: str) -> str:
    """Return the content of a file as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def pairs(rows: Sequence[VerdictRow]) -> str:
    """Return a table of all pairs of layers for each method and pair of groups; of several pairs of
    networks, means."""
    parts = [part for section in parts_of(sections_of(rows)) for part in by_groups(section)]
    return "\n".join(table(_means(part) if part.is_summary else _verdicts(part)) for part in parts)


def _verdicts(section: Section) -> Table:
    """Return the verdicts on two networks, with values of detectors and measures."""
    names = dict.fromkeys(name for row in section.rows for name in row.further)
    further = [name for name in names if not column_of(name).part]  # without nulls
    lines = []
    for row in section.rows:
        numbers = [words.estimate(row, name) for name in ESTIMATES]
        numbers += [words.number(name, row.further.get(name)) for name in further]
        lines.append([str(row.pair), row.verdict, *numbers])
    titles = [name.replace(AUROC, "AUROC ").replace("_", " ") for name in further]
    header = ["front -> end layer", "verdict", *map(words.heading, ESTIMATES), *titles]
    return Table(section.title, header, lines)


def _means(section: Section) -> Table:
    """Return the shares of similar pairs and the means over pairs of networks."""
    lines = []
    for pair, rows in grouped(section.rows, lambda row: row.pair).items():
        share = sum(row.verdict == SIMILAR for row in rows) / len(rows)
        numbers = [words.number(SIMILAR, share)]
        for name in ESTIMATES:
            ((mean,),) = mean_of(rows, name).values
            numbers.append(words.number(name, mean))
        lines.append([str(pair), str(len(rows)), *numbers])
    header = ["front -> end layer", "pairs of networks", *map(words.heading, (SIMILAR, *ESTIMATES))]
    return Table(f"{section.title}: means", header, lines)


def made_with(
    networks: Sequence[Any],
    images: Mapping[str, Mapping[str, Sequence[str]]],
    commands: Sequence[Any],
) -> str:
    """Return the networks, the images, the versions and the commands of the results.

    Args:
        networks: with the columns of the table as attributes.
        images: fingerprints by option and by data set.
        commands: with their versions.
    """
    of_networks = [
        [row.name, row.group, row.type, row.checkpoint, row.dataset]
        + [words.number("accuracy", row.accuracy), row.weights]
        for row in networks
    ]
    of_images = [
        [dataset, title, digest]
        for split, title in SPLITS.items()
        for dataset, digests in images[RECORDS[split]].items()
        for digest in digests
    ]
    versions = dict.fromkeys(
        (row.suite, row.commit[:SHORT], row.packages, row.device) for row in commands
    )
    names = ["name", "group", "type", "checkpoint", "data", "accuracy", "SHA-256 of the weights"]
    lines = "\n".join(row.command for row in commands)
    return "\n".join(
        [
            table(Table("Networks", names, of_networks)),
            table(Table("Data", ["data set", "inputs", "fingerprint (SHA-256)"], of_images)),
            table(Table("Versions", ["suite", "commit", "packages", "device"], list(versions))),
            f"<pre>{escape(lines)}</pre>",
        ]
    )


def archive(files: Iterable[Path], name: str) -> str:
    """Return a link to an archive of tables and figures, which is in the page."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(files):
            file.write(path, f"{name}/{path.name}")
    address = _data(content.getvalue(), "application/octet-stream")
    size = len(content.getvalue()) / 1000
    text = f"Save all tables (CSV) and figures (PDF) as {name}.zip ({size:.0f} kB)"
    return (
        f'<p class="file"><a download="{escape(name)}.zip" href="{address}">{escape(text)}</a></p>'
    )
