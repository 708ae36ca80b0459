"""The HTML report of an experiment: its verdicts, figures and provenance in one self-contained page.

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

import pandas as pd

from src.core.user_code import short, titles_in
from src.figures import terms, words
from src.figures.pages import CAPTION
from src.figures.scales import title_of
from src.figures.sections import Part, parts_of
from src.figures.words import Table
from src.results.network_names import SHORT
from src.results.spec import RECORDS, SPLITS
from src.results.tables import AUROC, LAYERS
from src.verdict import INCONCLUSIVE, SIMILAR, Limits

ESTIMATES = ("accuracy_drop", "skill_at_end", "skill")

# Figures are as wide as a phone at most; tables that are wider scroll, and a shadow at their side says so
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
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
figure { margin: 0; width: 28rem; max-width: 100%; }
img { width: 100%; }
.wide { overflow-x: auto; margin: 1rem 0;
        background: linear-gradient(#fff, #fff) right / 1rem 100% no-repeat local,
                    linear-gradient(to left, #0004, #fff0) right / 1rem 100% no-repeat scroll; }
table, figcaption, pre { font-size: .85rem; border-collapse: collapse; }
table { font-variant-numeric: tabular-nums; }
th, td { text-align: left; white-space: nowrap; padding: .2rem 1rem .2rem 0; }
thead th { border-bottom: 1.5px solid #1a1a1a; }
tbody th { font-weight: normal; }
tbody tr { border-bottom: 1px solid #ddd; }
pre { padding: .7rem 1rem; background: #f4f4f4; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 1rem 0; }
@media print {
  @page { margin: 15mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 9pt; }
  .file, details { display: none; }
  .wide { overflow: visible; background: none; }
  h2 { break-after: avoid; margin-top: 1rem; }
  figure, tr { break-inside: avoid; }
  table, pre { font-size: 7pt; }
  th, td { white-space: normal; overflow-wrap: anywhere; }
  figure { width: 85mm; }
  img { max-height: 240mm; object-fit: contain; }
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
    """Return the HTML page that consists of the given parts."""
    return PAGE.substitute(title=escape(title), body="\n".join(filter(None, parts)))


def section(title: str, *parts: str) -> str:
    """Return an HTML section with a heading; "" if all parts are empty."""
    if not any(parts):
        return ""
    return "\n".join([f"<h2>{escape(title)}</h2>", *filter(None, parts)])


def folded(title: str, *parts: str) -> str:
    """Return a collapsed HTML section; "" if all parts are empty."""
    if not any(parts):
        return ""
    summary = f"<details><summary>{escape(title)}</summary>"
    return "\n".join([summary, *filter(None, parts), "</details>"])


def paragraphs(texts: Iterable[str], *, kind: str = "") -> str:
    """Return an HTML paragraph for each text."""
    return "\n".join(f'<p class="{kind}">{escape(text)}</p>' for text in texts)


def meanings(limits: Limits) -> str:
    """Return HTML paragraphs with the meaning and the rule of each verdict."""
    rules = terms.meanings(100 * limits.tolerance, limits.skill, limits.skill_at_end)
    lines = [f"<p><b>{verdict}</b>: {escape(meaning)}.</p>" for verdict, meaning in rules.items()]
    return "\n".join([*lines, paragraphs([terms.SKILL, words.certainty(limits), terms.CAUTION])])


def table(content: Table) -> str:
    """Return a scrollable HTML table; "" without rows. The first cell of a row is its header."""
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
    """Return embedded PNG figures with the captions from their metadata.

    Args:
        result: what the first image says, for readers who do not see it; others say the first sentence
            of their captions.
    """
    from PIL import Image

    parts = []
    for path in images:
        with Image.open(path) as image:
            caption = image.text.get(CAPTION, "")
        said = escape(result or caption.partition(". ")[0])
        result = ""  # which the first image says
        parts.append(
            f'<figure><img alt="{said}" src="{_data(path.read_bytes(), "image/png")}">\n'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    if not parts:
        return ""
    return "\n".join(['<div class="figures">', *parts, "</div>"])


def _data(content: bytes, kind: str) -> str:
    """Return the content of a file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def pairs(frame: pd.DataFrame, measures: Sequence[str]) -> str:
    """Return an HTML table of all pairs of layers for each method and pair of groups, with means over several
    pairs of networks.

    Args:
        measures: columns of similarity and of detectors.
    """
    return "\n".join(table(_of_layers(part, measures)) for part in parts_of(frame))


def _of_layers(part: Part, measures: Sequence[str]) -> Table:
    """Return the table of verdicts on two networks, or of shares of similar pairs and means over several pairs
    of networks."""
    known = [name for name in measures if part.rows[name].notna().any()]
    titles = [name.replace(AUROC, "AUROC ").replace("_", " ") for name in known]
    first = title_of(SIMILAR) if part.n_pairs > 1 else "verdict"
    header = ["front -> end layer", first, *map(title_of, ESTIMATES), *titles]
    lines = []
    for (front, end), rows in part.rows.groupby(LAYERS, sort=False):
        if part.n_pairs > 1:
            shares = rows.verdict.value_counts(normalize=True)
            texts = [words.share_of(shares.get(SIMILAR, 0), shares.get(INCONCLUSIVE, 0))]
            texts += [words.number(name, rows[name].mean()) for name in ESTIMATES]
        else:
            texts = [rows.verdict.iloc[0]]
            texts += [_estimate(rows.iloc[0], name) for name in ESTIMATES]
        texts += [words.number(name, rows[name].mean()) for name in known]
        lines.append([f"{front} -> {end}", *texts])
    return Table(part.title, header, lines)


def _estimate(row: Any, name: str) -> str:
    """Format a value with its interval; "" where the value is missing."""
    value, *ends = (words.number(name, row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{', '.join(ends)}]" if all(ends) else value


def made_with(
    networks: Sequence[Any],
    images: Mapping[str, Mapping[str, Sequence[str]]],
    commands: Sequence[Mapping[str, str]],
) -> str:
    """Return the section on provenance: networks, images, versions and commands.

    Args:
        networks: with data set and accuracy.
        images: fingerprints by option and by data set.
        commands: with their versions.
    """
    of_networks = [
        [
            network.name,
            short(titles_in(network.group)),
            network.type,
            network.path,
            dataset,
            words.number("accuracy", accuracy),
            network.weights,
        ]
        for network, dataset, accuracy in networks
    ]
    of_images = [
        [dataset, title, digest]
        for split, title in SPLITS.items()
        for dataset, digests in images[RECORDS[split]].items()
        for digest in digests
    ]
    versions = dict.fromkeys(
        (row["suite"], row["commit"][:SHORT], row["packages"], row["device"]) for row in commands
    )
    names = ["name", "group", "type", "checkpoint", "data", "accuracy", "SHA-256 of the weights"]
    lines = "\n".join(dict.fromkeys(row["command"] for row in commands))
    return "\n".join(
        [
            table(Table("Networks", names, of_networks)),
            table(Table("Data", ["data set", "inputs", "fingerprint (SHA-256)"], of_images)),
            table(Table("Versions", ["suite", "commit", "packages", "device"], list(versions))),
            folded("Commands", f"<pre>{escape(lines)}</pre>"),
        ]
    )


def archive(files: Iterable[Path], name: str) -> str:
    """Return a download link to an embedded archive of tables and figures."""
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
