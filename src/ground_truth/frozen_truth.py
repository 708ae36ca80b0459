"""A frozen run of the ground truth: the features and numbers that score a new measure.

The file `features.npz` has a part for each test, whose names begin with its number. A part has the
layers, the pairs of networks that were measured, the features of these networks, and the numbers of
outputs and baselines of all networks. `scores.csv` beside it has the scores of the measures so far.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.choices.similarity import SAMPLES, measure_of
from src.ground.files import readable, write_arrays
from src.ground_truth.truth_tables import Tables
from src.results.tables import read_table, write_table
from src.results.truth_rows import TruthRow

FEATURES = "features.npz"
SCORES = "scores.csv"
REMEDY = (
    "give a folder of --freeze: misc/docs/ground_truth.md makes one of 15 networks in two minutes;"
    " make ground-truth, in 15 minutes, writes results/paper/ground_truth/digits/frozen"
)


# The values of a test that are arrays as they are
PLAIN = ("pairs", "groups", "layers", "alignment", "shortcut", "is_pooled")


class FrozenTest(NamedTuple):
    """A test of N networks: the data by which any measure is scored."""

    features: Mapping[str, Mapping[str, Tensor]]  # activations (n, ...) by network and layer
    pairs: list[tuple[str, str]]  # of networks, that the measures so far compare
    groups: list[str]  # (N,), see `truth_protocol`
    layers: list[str]  # L
    outputs: Mapping[str, NDArray]  # (N, N) by name, from `outputs.differences`
    numbers: NDArray  # (3, N, L), from `outputs.baseline_numbers`
    alignment: str  # see `features.alignment_of`
    shortcut: float | None = None  # test images had dots
    is_pooled: bool = False  # activations are averages over positions, (n, C)

    def tables(self, values: Mapping[str, NDArray]) -> Tables:
        """Return values of measures, (N, N, L, L), as tables with the baselines."""
        tables = Tables(self.layers, dict(values), frozenset(), shortcut=self.shortcut)
        return tables.with_baselines(self.numbers)

    def of_whole_layers(self, measures: Iterable[str]) -> list[str]:
        """Return the measures, by column, that averages over positions change.

        Averages over positions are enough for measures that have images as samples.
        """
        if not self.is_pooled:
            return []
        are_samples = self.alignment == "pool"
        return [name for name in measures if not are_samples or measure_of(name).of != SAMPLES]


def write_frozen(folder: Path, tests: Iterable[FrozenTest], rows: Iterable[TruthRow]) -> None:
    """Write tests and rows of scores into a folder."""
    arrays: dict[str, NDArray] = {}
    for number, test in enumerate(tests):
        arrays |= {f"{number}/{name}": array for name, array in _arrays_of(test).items()}
    write_arrays(folder / FEATURES, arrays)
    write_table(folder / SCORES, TruthRow, rows)


def _arrays_of(test: FrozenTest) -> dict[str, NDArray]:
    """Return a test as arrays by name."""
    arrays = {name: np.array(getattr(test, name)) for name in PLAIN}
    if test.shortcut is None:
        del arrays["shortcut"]
    arrays["networks"] = np.array(list(test.features))
    arrays["numbers"] = test.numbers
    for name, differences in test.outputs.items():
        arrays[f"outputs/{name}"] = differences
    for network, features in test.features.items():
        for layer, activation in features.items():
            arrays[f"features/{network}/{layer}"] = activation.numpy()
    return arrays


def read_frozen(folder: Path) -> list[FrozenTest]:
    """Read the tests of a folder.

    Raises:
        UserError: the folder was not written by `write_frozen`, or is damaged.
    """
    path = folder / FEATURES
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as archive:
        arrays_of_tests: dict[str, dict[str, NDArray]] = defaultdict(dict)
        for name in archive.files:
            number, _, name_in_test = name.partition("/")
            arrays_of_tests[number][name_in_test] = archive[name]
        return [_test_of(arrays) for arrays in arrays_of_tests.values()]


def _test_of(arrays: Mapping[str, NDArray]) -> FrozenTest:
    """Return the test that `_arrays_of` turned into arrays."""
    features: dict[str, dict[str, Tensor]] = {name: {} for name in arrays["networks"].tolist()}
    outputs = {}
    for name, array in arrays.items():
        kind, _, further = name.partition("/")
        if kind == "outputs":
            outputs[further] = array
        elif kind == "features":
            network, _, layer = further.partition("/")
            features[network][layer] = torch.from_numpy(array)
    plain = {name: arrays[name].tolist() for name in PLAIN if name in arrays}
    plain["pairs"] = list(map(tuple, plain["pairs"]))
    return FrozenTest(features=features, outputs=outputs, numbers=arrays["numbers"], **plain)


def read_scores(folder: Path) -> list[TruthRow]:
    """Read the rows of scores of a folder.

    Raises:
        UserError: there are none, or they are damaged.
    """
    return read_table(folder / SCORES, TruthRow)
