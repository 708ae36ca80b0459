#!/usr/bin/env python3
"""Write a folder for each stitch of some runs, as the paper's code has them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Write a folder for each stitch of some runs. The paper's code reads the folders, and so does this suite."
    )
    add = options.add_argument
    add("source_dirs", nargs="+", help="folders of stitching runs, or single runs")
    add("-o", "--output", required=True, help="new folder to write to")
    return options


def export(args) -> None:
    from src.core.console import note, warn
    from src.core.errors import UserError
    from src.results.exchange import export_stitch
    from src.results.folders import read_stitches

    target = Path(args.output)
    if target.exists():
        raise UserError(f"-o {target} exists; give a new folder")
    stitches = []
    for folder in args.source_dirs:
        of_folder, skipped = read_stitches(folder)
        for reason in skipped:
            warn(f"skipped: {reason}")
        stitches += of_folder
    if not stitches:
        raise UserError(f"{' '.join(args.source_dirs)}: no finished stitching run; give its folder")
    for stitch in stitches:
        export_stitch(stitch, target)
    note(f"wrote {len(stitches)} folders to {target}")


def main(argv=None) -> int:
    return cli.run(parser(), export, argv)


if __name__ == "__main__":
    sys.exit(main())
