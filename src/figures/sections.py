"""Splits a frame of verdicts into parts that share a map or a table: one method, one pair of groups, one set of
layers."""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import pandas as pd

from src.core.user_code import short, titles_in
from src.results.frame import architectures, layers_of
from src.results.network_names import short_names
from src.results.tables import GROUPS, IN_SHORT, NETWORKS, SIDES, TYPES

ENDINGS = {kind: f", {title}" for kind, title in IN_SHORT.items()}  # of titles, by kind
MAX_PAIRS = 16  # of groups of networks, that a method is divided into


class Part(NamedTuple):
    """The verdicts on a pair of groups of networks by one method."""

    method: str
    pair: str  # the networks or their groups, such as "a → b"
    rows: pd.DataFrame

    @property
    def n_pairs(self) -> int:
        """The number of pairs of networks."""
        return self.rows.networks.nunique()

    @property
    def title(self) -> str:
        """The method and the pair, and of several pairs of networks their number."""
        title = f"{self.method}, {self.pair}"
        if self.n_pairs > 1:
            title += f" ({self.n_pairs} pairs of networks)"
        return title


def parts_of(frame: pd.DataFrame) -> list[Part]:
    """Return the parts of a frame of verdicts, method by method.

    Stitches of two networks are divided by direction, others by groups, unless these are too many.
    """
    titles = titles_of_pairs(frame)
    groups = frame.groupby([frame.method, titles], sort=False)
    return [Part(titles_in(method), pair, rows) for (method, pair), rows in groups]


def titles_of_pairs(frame: pd.DataFrame) -> pd.Series:
    """Return the title of each row's networks or of their groups, with types if layers differ within a group,
    and with the kind of a control."""
    layers = layers_of(frame).groupby("architecture").layer.agg(frozenset)
    layouts = architectures(frame).apply(lambda kinds: kinds.map(layers))
    titles = frame.networks.where(has_two_networks(frame) | frame[GROUPS].isna().any(axis=1))
    titles = titles.fillna(joined(frame, GROUPS))
    if titles.nunique() > MAX_PAIRS:
        titles = titles.mask(titles.notna(), "all groups")
    n_layouts = layouts.apply(tuple, axis=1).groupby(titles).transform("nunique")
    types = " (" + joined(frame, TYPES) + ")"
    kinds = frame.kind.map(ENDINGS).fillna("")
    return titles + types.where(n_layouts > 1, "") + kinds


def has_two_networks(frame: pd.DataFrame) -> bool:
    """Return whether all rows are of one network or of two."""
    names = set(chain.from_iterable(frame[NETWORKS].itertuples(index=False)))
    return len(names) <= len(SIDES)


def joined(frame: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Join two columns to texts "a → b", without the paths of user code."""
    first, second = (frame[name].map(str).map(titles_in).map(short) for name in columns)
    return first + " → " + second


def by_method(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each method, in their order."""
    if len(table):
        yield from table.groupby("method", sort=False)


def with_short_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose networks have the names of their folders or files instead of paths."""
    paths = list(dict.fromkeys(frame[NETWORKS].stack().dropna()))
    names = dict(zip(paths, short_names(paths), strict=True))
    short_of = {name: frame[name].map(names) for name in NETWORKS}
    titles = short_of[NETWORKS[0]] + " → " + short_of[NETWORKS[1]]
    return frame.assign(**short_of, networks=titles.fillna(frame.networks))
