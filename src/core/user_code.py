"""Functions and classes in a user's code, given as FILE.py:FUNCTION.

The code runs only if the command line names it. Names in files that are merely read (`config.txt`,
tables) never reach `load`."""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from src.core.errors import UserError, unknown_name

CODE = "FILE.py:FUNCTION"
NAMED = re.compile(r"[^\s()]+[./][^\s()]*:([^\W\d]\w*)")  # the name of user code in a text
EPOCHS = re.compile(r":\d+$")  # behind an objective


def is_user_code(name: str) -> bool:
    """Return whether a name has the form FILE.py:FUNCTION."""
    file, function = file_and_function(name)
    return function.isidentifier() and file.endswith(".py")


def file_and_function(name: str) -> tuple[str, str]:
    """Split a name into the file, and the function or class in it."""
    file, _, function = name.rpartition(":")
    return file, function


def title_of(name: str) -> str:
    """Return the name that tables and figures show: the function of user code, or else the whole
    name."""
    if not is_user_code(name):
        return name
    _, function = file_and_function(name)
    return function


def titles_in(text: str) -> str:
    """Return a text such as "FILE.py:f → DEFAULT (FILE.py:g)", in which user code has its title."""
    return NAMED.sub(r"\1", text)


def short(name: str) -> str:
    """Return the last two parts of an absolute path; return a relative name unchanged."""
    path = Path(name)
    if path.is_absolute():
        return "/".join(path.parts[-2:])
    return name


def absolute(name: str, folder: Path = Path()) -> str:
    """Return the name of user code with the absolute path of its file; all further names stay.

    Args:
        folder: that a relative path counts from; default: the working folder.
    """
    if not is_user_code(name):
        return name
    file, function = file_and_function(name)
    return f"{os.path.abspath(folder / Path(file).expanduser())}:{function}"


def code_in(texts: Iterable[object]) -> list[str]:
    """Return the names of user code in texts, each once, with absolute paths.

    A text may have commas between names, and epochs behind a name.
    """
    names = [name for text in texts for name in (text, *str(text).split(","))]
    without_epochs = [EPOCHS.sub("", str(name)) for name in names]
    codes = [name for name in without_epochs if is_user_code(name)]
    return list(dict.fromkeys(map(absolute, codes)))


def by_title(names: Iterable[str], *, taken: Collection[str], noun: str) -> dict[str, str]:
    """Return names by the titles that tables show.

    Args:
        taken: names of the suite itself.
        noun: for what they name, for the error.
    Raises:
        UserError: a function has a name of the suite, or two functions have one name.
    """
    titles: dict[str, str] = {}
    for name in dict.fromkeys(names):
        title = title_of(name)
        if title != name and title in taken:
            raise UserError(
                f"{name}: {title} is the name of a {noun} of the suite; rename the function"
            )
        if title in titles:
            raise UserError(
                f"{titles[title]} and {name} have the same name; rename one of the functions"
            )
        titles[title] = name
    return titles


def source_of(name: str) -> Path:
    """Return the absolute path of the file that holds user code."""
    file, _ = file_and_function(name)
    return Path(file).expanduser().absolute()


def digest_of(name: str) -> str:
    """Return the SHA-256 of the file that holds user code, and of the files beside it that it imports.

    Raises:
        UserError: a file cannot be read.
    """
    sources: dict[Path, bytes] = {}
    _read_sources(source_of(name), sources)
    first, *further = sources.values()
    return hashlib.sha256(b"".join([first, *sorted(further)])).hexdigest()


def _read_sources(path: Path, sources: dict[Path, bytes]) -> None:
    """Read a file of code and the files in its folder that it imports, into `sources`."""
    try:
        sources[path] = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    imported = []
    with contextlib.suppress(SyntaxError, ValueError):  # running the file says so
        for statement in ast.walk(ast.parse(sources[path])):
            if isinstance(statement, ast.Import):
                imported += [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                imported.append(statement.module)
    for module in imported:
        file = path.parent / f"{module.partition('.')[0]}.py"
        if file.is_file() and file not in sources:
            _read_sources(file, sources)


def load(name: str, *, remedy: str = f"correct it, or give the right {CODE}") -> Callable[..., Any]:
    """Run the file of user code, and return its function or class.

    Args:
        remedy: of the error of code that fails.
    Raises:
        UserError: there is no such file or function, or the code fails.
    """
    file, function = file_and_function(name)
    with failing_as_user_error(name, remedy=remedy):
        contents = _run(source_of(name))
    content = contents.get(function)
    if callable(content):
        return content
    names = [key for key, value in contents.items() if callable(value) and not key.startswith("_")]
    raise unknown_name(f"function in {file}", function, names, where="see the file")


@contextlib.contextmanager
def failing_as_user_error(name: str, *, remedy: str = "mend it") -> Iterator[None]:
    """Turn an exception of user code in this block into a UserError that names its file and line.

    Args:
        remedy: of the error.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code raises
        path = source_of(name)
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename) == path
        ]
        place = str(path)
        if lines:
            place += f", line {lines[-1]}"
        raise UserError(f"cannot run {place}: {type(error).__name__}: {error}; {remedy}") from error


@functools.cache  # several names may be of one file
def _run(path: Path) -> dict[str, object]:
    """Run a file and return its names; as a script it may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return vars(module)
