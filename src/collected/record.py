"""What a verdict was given on, and by which version: for the files beside its table."""

from collections.abc import Iterable, Mapping, Sequence

from src.ground.grouping import grouped
from src.runs.folders import StitchingRun
from src.tables.image_records import SPLITS, record_of
from src.tables.network_names import SHORT

NOT_RECORDED = "images without a fingerprint"


def images_of(runs: Iterable[StitchingRun]) -> dict[str, dict[str, list[str]]]:
    """Return the fingerprints of the images of runs, by option and by data set.

    The list of a data set is empty if no run recorded its images.
    """
    by_dataset = grouped(runs, lambda run: str(run.row.dataset))
    images: dict[str, dict[str, list[str]]] = {}
    for name in map(record_of, SPLITS):
        images[name] = {}
        for dataset, runs_on_dataset in by_dataset.items():
            digests = [run.options.get(name) for run in runs_on_dataset]
            images[name][dataset] = list(dict.fromkeys(filter(None, digests)))
    return images


def describe(
    images: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    suite: str,
    commit: str | None,
    command: str,
) -> list[str]:
    """Return the sentences on the version, the images and the command of a verdict.

    Args:
        images: from `images_of`.
        suite, commit, command: of its `run.json`.
    """
    version = suite
    if commit:
        version += f", commit {commit[:SHORT]}"
    data = []
    for dataset, digests in images[record_of("test_images")].items():
        shown = " and ".join(digest[:SHORT] for digest in digests)
        data.append(f"{dataset} ({shown or NOT_RECORDED})")
    return [
        f"Given by version {version}, on the test images of {', '.join(data)}.",
        f"Command: `{command}`",
    ]
