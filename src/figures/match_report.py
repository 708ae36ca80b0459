"""The report of best matches: how often they are the corresponding layers, and which layers they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from src.collected.best_matches import (
    BestMatchRow,
    MatchShareRow,
    match_shares,
    tables_of_layers,
    tables_of_shares,
)
from src.ground.console import note, result, table
from src.tables.matrices import Matrix
from src.tables.tables import write_table

MAX_TABLES = 12  # of layers; of more, the CSV has all


def print_shares(rows: Sequence[BestMatchRow]) -> None:
    """Print how often best matches are the corresponding layers."""
    _print(tables_of_shares(rows))


def print_layers(rows: Sequence[BestMatchRow]) -> None:
    """Print the best matches of layers, at most `MAX_TABLES` tables."""
    tables = tables_of_layers(rows)
    _print(dict(list(tables.items())[:MAX_TABLES]))
    if len(tables) > MAX_TABLES:
        note(
            f"{MAX_TABLES} of {len(tables)} tables of layers are printed; the CSV has all best matches"
        )


def _print(tables: Mapping[str, Matrix]) -> None:
    """Print tables with their titles."""
    for title, matrix in tables.items():
        table(title, *matrix)
        result()


def write_files(path: Path, rows: Sequence[BestMatchRow]) -> None:
    """Write the table of best matches, and beside it the table of shares."""
    write_table(path, BestMatchRow, rows)
    write_table(path.with_name(f"{path.stem}_shares.csv"), MatchShareRow, match_shares(rows))
