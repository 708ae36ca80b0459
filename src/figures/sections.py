"""Sections of reports: the verdicts of one method and one kind of networks, and parts of a
section."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.results.architectures import architecture_pairs
from src.results.network_names import counted
from src.results.verdict_rows import VerdictRow

MAX_GROUP_PAIRS = 9  # pairs of groups that a method is divided into


class Section(NamedTuple):
    """A section of a report: the verdicts of one method and one kind of networks."""

    method: str  # and the architectures or groups of a part of a section
    rows: list[VerdictRow]
    is_of_all: bool = False  # the method has no other networks

    @property
    def is_summary(self) -> bool:
        """Whether the section reports means over several pairs of networks."""
        return len({row.networks for row in self.rows}) > 1

    @property
    def title(self) -> str:
        """The method, and its pair of networks or their number."""
        if self.is_summary:
            pairs = {row.networks: (row.front_network, row.end_network) for row in self.rows}
            return f"{self.method}, {counted(pairs.values(), self.rows[0].kind)}"
        return self.method if self.is_of_all else f"{self.method}, {self.rows[0].networks}"


def sections_of(rows: Sequence[VerdictRow]) -> list[Section]:
    """Return the verdicts of each method, in a section for each kind of pairs of networks."""
    sections = []
    for method, of_method in grouped(rows, lambda row: row.method).items():
        has_one = len({row.networks for row in of_method}) == 1
        for of_kind in grouped(of_method, lambda row: row.kind).values():
            sections.append(Section(method, of_kind, has_one))
    return sections


def parts_of(sections: Iterable[Section]) -> list[Section]:
    """Return sections, each divided by its pairs of architectures; of two networks by direction."""
    parts = []
    for section in sections:
        networks = {name for row in section.rows for name in (row.front_network, row.end_network)}
        if len(networks) == 2 and section.is_summary:
            of_directions = _divided(section, [row.networks for row in section.rows])
            parts += [part._replace(is_of_all=True) for part in of_directions]
        else:
            parts += _divided(section, architecture_pairs(section.rows))
    return parts


def by_groups(section: Section) -> list[Section]:
    """Return a section for each pair of groups of networks; the section itself if there are more
    than `MAX_GROUP_PAIRS` pairs."""
    pairs = [titles_in(f"{row.front_group} → {row.end_group}") for row in section.rows]
    return _divided(section, pairs) if len(set(pairs)) <= MAX_GROUP_PAIRS else [section]


def _divided(section: Section, titles: Sequence[str]) -> list[Section]:
    """Return a section for each title of its rows; the section itself if they have one."""
    parts = grouped(zip(titles, section.rows, strict=True), lambda item: item[0])
    if len(parts) == 1:
        return [section]
    return [
        Section(f"{section.method}, {title}", [row for _, row in items])
        for title, items in parts.items()
    ]
