"""The files of a figure: images and captions of its pages."""

import itertools
from collections.abc import Iterator
from pathlib import Path


def page_of(path: Path, number: int) -> Path:
    """Return the path of a page of a figure, by its number from 1 on: f.png, f_2.png."""
    if number == 1:
        return path
    return path.with_stem(f"{path.stem}_{number}")


def files_of_figure(path: Path, *, start: int = 1) -> Iterator[Path]:
    """Yield the files of a figure that exist: the images and the captions of its pages.

    NAME_2 is no page of NAME, but another figure, if there is a table NAME_2.csv. A file of such a name
    without the images of a page, both .png and .pdf, is the user's own.

    Args:
        path: of the figure, or of the table that it stands beside.
        start: the number of the first page to yield.
    """
    for number in itertools.count(start):
        page = page_of(path, number)
        if number > 1 and page.with_suffix(".csv").exists():
            continue
        images = [page.with_suffix(".png"), page.with_suffix(".pdf")]
        if not all(map(Path.exists, images)):
            return
        yield from filter(Path.exists, [*images, page.with_suffix(".txt")])


def remove_figure(path: Path, *, start: int = 1) -> None:
    """Remove the pages of an earlier figure, see `files_of_figure`."""
    for file in list(files_of_figure(path, start=start)):
        file.unlink()
