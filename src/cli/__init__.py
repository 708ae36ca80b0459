"""What the scripts share: a parser, types and groups of options, one way to run and to fail.

Nothing here imports torch, so that `--help` and a mistyped option are answered at once.
"""

from src.cli.groups import (
    add_data,
    add_figure,
    add_finetuning,
    add_gpu,
    add_resume,
    add_seed,
    add_title,
    add_training,
    figure_of,
    placing_of,
    settings_of,
)
from src.cli.parser import Parser, run
from src.cli.types import (
    csv_file,
    dataset,
    described,
    figure_file,
    rank,
    real_number,
    several,
    table_or_figure,
    whole_number,
)

__all__ = [
    "Parser", "add_data", "add_figure", "add_finetuning", "add_gpu", "add_resume", "add_seed", "add_title",
    "add_training", "csv_file", "dataset", "described", "figure_file", "figure_of", "placing_of", "rank", "real_number",
    "run", "settings_of", "several", "table_or_figure", "whole_number",
]  # fmt: skip
