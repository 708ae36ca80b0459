"""Provenance of results for reports: networks, images, versions and commands."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from src.core.files import read_json
from src.core.grouping import grouped
from src.results.network_names import SHORT, NamedNetwork, Names, NetworkKey, networks_named_by
from src.results.run import record_of
from src.results.spec import RECORDS, TEST
from src.results.stitches import Stitch

NOT_RECORDED = "inputs without a fingerprint"
PACKAGES = ("python", "torch", "torchvision", "numpy", "scipy", "cuda")


def images_of(stitches: Iterable[Stitch]) -> dict[str, dict[str, list[str]]]:
    """Return the fingerprints of the images of stitches, by option and by data set, and the weights of their
    networks.

    The list of a data set is empty if no stitch recorded its images.
    """
    stitches = list(stitches)
    images: dict[str, dict[str, list[str]]] = {name: {} for name in RECORDS.values()}
    for stitch in stitches:
        for name, of_datasets in images.items():
            digests = of_datasets.setdefault(str(stitch.record["dataset"]), [])
            digest = stitch.options.get(name)
            if digest and digest not in digests:
                digests.append(digest)
    weights = set()
    for stitch in stitches:
        (front, _), (end, _) = stitch.network_keys
        weights.add(f"{front} → {end}")
    images["stitches_sha256"] = {"": sorted(weights)}
    return images


def describe(
    images: Mapping[str, Mapping[str, Sequence[str]]], made_with: Mapping[str, Any]
) -> list[str]:
    """Return sentences on the version, the images and the command that made a verdict.

    Args:
        images: from `images_of`.
        made_with: the content of its `run.json`.
    """
    version = made_with["suite"]
    if made_with["commit"]:
        version += f", commit {made_with['commit'][:SHORT]}"
    data = []
    for dataset, digests in images[RECORDS[TEST]].items():
        shown = " and ".join(digest[:SHORT] for digest in digests)
        data.append(f"{dataset} ({shown or NOT_RECORDED})")
    return [
        f"Given by version {version}, on the test inputs of {', '.join(data)}.",
        f"Command: `{made_with['command']}`",
    ]


def networks_of(
    stitches: Iterable[Stitch], similarities: Any, names: Names
) -> list[tuple[NamedNetwork, str, float | None]]:
    """Return the networks of results with each data set and the accuracy on it, in the order of `names`.

    The accuracy is None where it was not measured.

    Args:
        similarities: the frame of tables of similarity.
        names: of the networks to return; tables of similarity may have others.
    """
    measured: dict[tuple[NetworkKey, str], tuple[NamedNetwork, str, float | None]] = {}
    for stitch in stitches:
        recorded = networks_named_by(stitch.options)  # with all digits of the weights
        for key, side in zip(stitch.network_keys, ("front", "end"), strict=True):
            network = replace(names[key], weights=recorded[f"{side}_model"].weights)
            accuracy: float = stitch.record[f"{side}_accuracy"]
            known = None if math.isnan(accuracy) else accuracy
            dataset = str(stitch.record["dataset"])
            measured.setdefault((key, dataset), (network, dataset, known))
    for row in similarities.itertuples():
        for network in row.networks:
            if network.key in names:
                named = replace(names[network.key], weights=network.weights)
                measured.setdefault((network.key, row.dataset), (named, row.dataset, None))
    order = list(names)
    return [measured[place] for place in sorted(measured, key=lambda place: order.index(place[0]))]


class Command(NamedTuple):
    """A command that made results, with the versions of the software."""

    command: str
    suite: str
    commit: str
    packages: str  # Python, torch and the like, with their versions
    device: str
    start: str  # of the first run, as an ISO date

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Command":
        """Return the command that is recorded in the content of a `run.json`."""
        versions = [f"{name} {record[name]}" for name in PACKAGES if record.get(name)]
        names = ("command", "suite", "commit", "device")
        texts = {name: str(record.get(name) or "") for name in names}
        return cls(**texts, packages=", ".join(versions), start=record["start"])


def commands_of(files: Iterable[Path]) -> list[Command]:
    """Return the distinct commands that made results, the earliest first.

    Args:
        files: `run.json` of the results. Some may not exist, as the paper's code writes none, and
            some may be of other software, which are left out.
    """
    contents = [read_json(file) for file in dict.fromkeys(files) if file.is_file()]
    commands = [Command.of(content) for content in contents if "suite" in content]
    by_line = grouped(commands, lambda command: command._replace(start=""))
    first = [min(repeated, key=lambda command: command.start) for repeated in by_line.values()]
    return sorted(first, key=lambda command: command.start)


def files_of(
    stitches: Iterable[Stitch], tables: Iterable[Path], networks: Iterable[NamedNetwork]
) -> Iterator[Path]:
    """Yield the files `run.json` of training runs, stitches, evaluations and tables, whether or not
    they exist."""
    for network in networks:
        if network.is_file:
            yield Path(network.path).parent / "run.json"
    folders = dict.fromkeys(stitch.folder for stitch in stitches)
    for folder in folders:
        yield folder / "run.json"
    for folder in dict.fromkeys([*(folder.parent for folder in folders), *folders]):
        yield from sorted(folder.glob("evaluation*.json"))
    for table in tables:
        yield record_of(table)
