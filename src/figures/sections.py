"""Sections of reports: the verdicts of one method and one kind of networks, and parts of a section."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from src.ground.grouping import grouped
from src.ground.user_code import titles_in
from src.tables.architectures import architecture_pairs
from src.tables.verdict_rows import VerdictRow

MAX_GROUP_PAIRS = 9  # pairs of groups that a method is divided into


class Section(NamedTuple):
    """A section of a report: the verdicts of one method and one kind of networks."""

    title: str
    rows: list[VerdictRow]
    n_networks: int  # pairs of networks
    method: str  # and the architectures of a part of a section

    @property
    def is_summary(self) -> bool:
        """Whether the section reports means over several pairs of networks."""
        return self.n_networks > 1


def sections_of(rows: Sequence[VerdictRow]) -> list[Section]:
    """Return the verdicts of each method, in a section for each kind of pairs of networks."""
    sections = []
    for method, rows_of_method in grouped(rows, lambda row: row.method).items():
        has_many = len({row.networks for row in rows_of_method}) > 1
        for kind, rows_of_kind in grouped(rows_of_method, lambda row: row.kind).items():
            titles = {row.networks for row in rows_of_kind}
            title = method
            if len(titles) > 1:
                title = f"{method}, {len(titles)} {kind}"
            elif has_many:
                title = f"{method}, {rows_of_kind[0].networks}"
            sections.append(Section(title, rows_of_kind, len(titles), method))
    return sections


def parts_of(sections: Iterable[Section]) -> list[Section]:
    """Return sections, each divided by its pairs of architectures."""
    return list(chain.from_iterable(map(by_architectures, sections)))


def by_architectures(section: Section) -> list[Section]:
    """Return a section for each pair of architectures; the section itself if there is one pair."""
    pairs = architecture_pairs(section.rows)
    if not any(pairs):
        return [section]
    titled = zip(pairs, section.rows, strict=True)
    return [
        _part(section, f"{section.method}, {pair}", [row for _, row in items])
        for pair, items in grouped(titled, lambda item: item[0]).items()
    ]


def _part(section: Section, name: str, rows: list[VerdictRow]) -> Section:
    """Return a part of a section with the name and the number of its pairs of networks as title."""
    networks = {row.networks for row in rows}
    pairs = f"{len(networks)} {rows[0].kind}"
    if len(networks) == 1:
        pairs = rows[0].networks
    return Section(f"{name}, {pairs}", rows, len(networks), name)


def by_groups(section: Section) -> list[Section]:
    """Return a section for each pair of groups of networks; the section itself where there is one
    group, or more than `MAX_GROUP_PAIRS` pairs of groups."""
    if not section.is_summary:
        return [section]
    parts = grouped(section.rows, lambda row: (row.front_group, row.end_group))
    if not 1 < len(parts) <= MAX_GROUP_PAIRS:
        return [section]
    return [
        _part(section, f"{section.method}, {titles_in(' → '.join(map(str, groups)))}", rows)
        for groups, rows in parts.items()
    ]
