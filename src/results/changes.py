"""Changes since results were made: in the weights of networks, in the user's code, and in the
images.

This module does not import torch.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from src.choices import Options
from src.core.console import warn_once
from src.core.errors import UserError
from src.core.files import read_json
from src.core.user_code import source_of
from src.results.identity import DIGEST, differences
from src.results.image_records import RECORDS, changed_images
from src.results.network_names import RECORD, NetworkName, content_of, networks_named_by

# The options of code that measures: what it measured is soon made again, unlike stitches
MEASURING = ("detector", "metrics")


def changed_since(before: Options, now: Options) -> list[str]:
    """Return the changes since a result was made, such as "weights of a.pt".

    Args:
        before: the options of the result in files.
        now: the options of this process. They may name the recorded weights under another path.
    """
    changed = [f"weights of {title}" for title in _changed_weights(before, now)]
    for option, file in _changed_code(before, now):
        if option not in MEASURING:
            changed.append(f"code of {file}")
    images = changed_images(before, now)
    if images:
        changed.append(f"{' and '.join(images)} of {now['dataset']}")
    return changed


def _changed_weights(before: Options, now: Options) -> list[str]:
    """Return the titles of the networks in `before` with weights that have changed since."""
    networks_now = networks_named_by(now)
    weights_at = {network.place: network.weights for network in networks_now.values()}
    titles = []
    for name, network in networks_named_by(before).items():
        is_unchanged = name in networks_now and networks_now[name].weights == network.weights
        weights_now = weights_at.get(network.place, "")
        if network.weights and weights_now not in ("", network.weights) and not is_unchanged:
            titles.append(network.title)
    return titles


def _changed_code(before: Options, now: Options) -> Iterator[tuple[str, Path]]:
    """Yield the option and the file of user code that has changed since a result was made."""
    code_now = _code_of(now)
    for (option, code), digest in _code_of(before).items():
        if code_now.get((option, code), digest) != digest:
            yield option, source_of(code)


def _code_of(options: Options) -> dict[tuple[str, str], str]:
    """Return the recorded SHA-256 of the files of user code, by option and name of the code."""
    digests: dict[tuple[str, str], str] = {}
    for record, digest in options.items():
        if not record.endswith(DIGEST) or record.endswith(RECORD) or record in RECORDS.values():
            continue
        option = record.removesuffix(DIGEST)
        codes = digest if isinstance(digest, dict) else {str(options.get(option)): digest}
        digests |= {(option, code): of_code for code, of_code in codes.items()}
    return digests


def refuse_other_options(
    before: Options,
    now: Options,
    *,
    where: Path,
    remedy: str = "give the same ones, or start anew without --resume",
) -> None:
    """Raise a UserError if the networks, the images, the code or the options of two runs differ.

    Code that measures, and has changed, is warned of.

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
    for option, file in _changed_code(before, now):
        if option in MEASURING:
            warn_once(
                f"{file} has changed since results were made with it; remove them to make them again"
            )


def options_beside_tables(tables: Iterable[str | Path]) -> list[Options]:
    """Return the options in the files `.config.txt` beside tables."""
    records = []
    for table in tables:
        with contextlib.suppress(UserError):
            records.append(read_json(Path(table).with_suffix(".config.txt")))
    return [options for options in records if isinstance(options, dict)]


def warn_of_earlier(networks: Iterable[NetworkName], records: Iterable[Options]) -> None:
    """Warn of results with weights or code that have changed since. The code does not run.

    Args:
        networks: of all results.
        records: the options of results, as far as there are some.
    """
    for network in dict.fromkeys(networks):
        if network.has_changed:
            warn_once(f"there are results of earlier weights of {network.title}")
    for options in records:
        for (_, code), digest in _code_of(options).items():
            with contextlib.suppress(UserError):  # the file is gone
                if content_of(source_of(code)) != digest:
                    warn_once(f"there are results of earlier code of {source_of(code)}")
