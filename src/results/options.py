"""Writes, reads and compares the options of runs in `config.txt`.

This module does not import torch.
"""

import json
import os
import reprlib
from pathlib import Path

from src.choices import Options
from src.ground.console import warn_once
from src.ground.errors import UserError
from src.ground.files import read_json
from src.ground.user_code import source_of
from src.results.changes import changed_since
from src.results.identity import DIGEST, FREE, KEPT, NOT_RECORDED, is_idle
from src.results.network_names import FRESH, content_of

# Options whose results change with the file of user code that they name
CODE_OPTIONS = ("init", "objective", "detector", "metrics")

# Values of this suite for the options that the public code writes as "" or 0
EMPTY: Options = {
    "scheduler": "none",
    "front_stitch_rank": None,
    "front_pinv_rank": None,
}


def as_written(options: Options) -> Options:
    """Return options in the form that `read_options` returns: without `NOT_RECORDED`, in JSON's types."""
    recorded = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    return json.loads(json.dumps(recorded))


def read_options(path: Path) -> Options:
    """Read the options in a `config.txt` of this suite or of the public code."""
    options = read_json(path)
    if not isinstance(options, dict):
        raise UserError(f"{path} holds no options; remove its folder")
    for name, value in EMPTY.items():
        if name in options and not options[name]:
            options[name] = value
    return options


def differences(before: Options, now: Options) -> str:
    """Describe how the options of two runs differ; "" if all common options agree.

    Options in `FREE` and `KEPT` may differ, and options without effect in both runs. So may the content of
    files (`..._sha256`): `changed_since` compares weights and images.
    """
    texts = []
    for name, value in before.items():
        is_compared = name in now and name not in (*FREE, *KEPT) and not name.endswith(DIGEST)
        is_without_effect = is_idle(name, before) and is_idle(name, now)
        if is_compared and not is_without_effect and not _agree(name, before, now):
            texts.append(f"{name} was {reprlib.repr(value)}, now {now[name]!r}")
    return ", ".join(texts)


def refuse_other_options(
    before: Options,
    now: Options,
    *,
    where: Path,
    remedy: str = "give the same ones, or start anew without --resume",
) -> None:
    """Raise a UserError if the networks, the images or the options of two runs differ.

    A file of user code that has changed is warned of.

    Args:
        before: the options of the run in the files.
        now: the options of this process.
        where: the file that holds `before`.
        remedy: the end of the message.
    """
    changed = changed_since(before, now)
    if changed:
        raise UserError(f"{where} is of a run with earlier {' and '.join(changed)}; {remedy}")
    text = differences(before, now)
    if text:
        raise UserError(f"{where} is of a run with other options ({text}); {remedy}")
    warn_of_changed_code(before, now)


def warn_of_changed_code(before: Options, now: Options) -> None:
    """Warn of user code that has changed since a run was made with it."""
    for name in CODE_OPTIONS:
        digests_before = _digests_of_code(name, before)
        for code, digest in _digests_of_code(name, now).items():
            if digests_before.get(code, digest) != digest:
                warn_once(
                    f"{source_of(code)} has changed since runs were made with it; remove their "
                    "folders, or choose another one, to make them again"
                )


def _digests_of_code(name: str, options: Options) -> dict[str, str]:
    """Return the SHA-256 of the files of user code that an option names, by name of the code."""
    digests = options.get(f"{name}_sha256", {})
    if isinstance(digests, str):
        return {options[name]: digests}
    return digests


def _agree(name: str, before: Options, now: Options) -> bool:
    """Return whether two values of an option agree.

    Paths agree if they name one place, or two files of the same content. The content of a
    checkpoint is the recorded SHA-256.
    """
    value_before = before[name]
    value_now = now[name]
    hash_before = before.get(f"{name}_sha256")
    hash_now = now.get(f"{name}_sha256")
    if name.endswith("_path") and hash_before and hash_now:
        # Fresh weights depend on type and seed, which are options themselves.
        are_fresh = value_before == value_now == FRESH
        return are_fresh or hash_before == hash_now
    if not (isinstance(value_before, str) and isinstance(value_now, str)):
        return value_before == value_now
    if os.path.normpath(value_before) == os.path.normpath(value_now):
        return True
    if not (os.path.isfile(value_before) and os.path.isfile(value_now)):
        return False
    return content_of(value_before) == content_of(value_now)
