#!/usr/bin/env python3
"""Write misc/docs/options.md, which lists every option of every script, from the parsers."""

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.files import write_text

FILES = [*sorted(ROOT.glob("exec_*.py")), *sorted((ROOT / "misc").glob("*.py"))]
PARSERS = [path for path in FILES if "\ndef parser(" in path.read_text()]
SCRIPTS = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PARSERS]
INTRODUCTION = """# Options

Made by `python misc/make_docs.py` from the parsers; `--help` says the same. Every option has its short and its long
spelling. Its name in `config.txt` and in files for `--config` is the long one, with underscores, unless the table names
another.
"""


def options() -> str:
    """Return the page as Markdown."""
    return "\n".join([INTRODUCTION, *(section(script) for script in SCRIPTS)])


def section(script: str) -> str:
    """Return the section of a script: its description and a row for each option."""
    parser = importlib.import_module(script).parser()
    rows = [row(action) for action in parser._actions if action.dest != "help"]
    table = ["| option | meaning | default |", "|---|---|---|", *rows]
    return "\n".join([f"## `{script.replace('.', '/')}.py`", "", parser.description, "", *table, ""])


def row(action: argparse.Action) -> str:
    """Return the row of an option: its spellings, its help text and its default."""
    names = ", ".join(f"`{name}`" for name in action.option_strings or [action.dest])
    written = max(action.option_strings, key=len, default="").lstrip("-").replace("-", "_")
    if action.option_strings and written != action.dest:
        names += f" ({action.dest})"
    meaning = (action.help or "").replace("%%", "%").replace("|", "\\|")
    if action.choices is not None:
        meaning += f" (one of {', '.join(f'`{choice}`' for choice in action.choices)})"
    return f"| {names} | {meaning} | {default(action)} |"


def default(action: argparse.Action) -> str:
    """Return the default of an option as a user would type it."""
    if action.required or (not action.option_strings and action.nargs != "?"):
        return "required"
    if action.const is True or isinstance(action.default, bool):
        return "off"
    value = " ".join(map(str, action.default)) if isinstance(action.default, list | tuple) else action.default
    return "–" if value in (None, "") else f"`{value}`"


if __name__ == "__main__":
    write_text(ROOT / "misc" / "docs" / "options.md", options())
