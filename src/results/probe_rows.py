"""Rows of the table of linear probes."""

from dataclasses import dataclass
from typing import ClassVar

from src.results.network_names import NamedNetwork
from src.results.spec import FurtherOptions
from src.values import Rank

# The options with a column
IN_COLUMNS = (
    "model_path",
    "model_type",
    "layer_names",
    "ranks",
    "n_epochs",
    "dataset",
    "shortcut",
    "seed",
)


@dataclass(frozen=True)
class ProbeRow:
    """A linear probe: a row of the table of `exec_probe.py`."""

    contents: ClassVar[str] = "probing"
    written_by: ClassVar[str] = "exec_probe.py -o"

    model: str
    layer: str
    rank: Rank
    accuracy: float  # on the test images
    train_accuracy: float | None  # None: not trained
    loss: float  # on the test images
    seed: int | None
    epochs: int | None
    model_type: str
    dataset: str
    n_images: int | None  # test images
    shortcut: float | None = None  # strength of the intervention: images had dots
    model_weights: str | None = None  # the first digits of their SHA-256
    train_images: str | None = None  # the first digits of their fingerprint
    test_images: str | None = None
    further_options: FurtherOptions = FurtherOptions()  # noqa: RUF009 - immutable

    @property
    def networks(self) -> tuple[NamedNetwork]:
        """The network, as a tuple of one, for the interface that rows of pairs have."""
        name = NamedNetwork.of(
            self.model, self.model_type, seed=self.seed, weights=self.model_weights
        )
        return (name,)
