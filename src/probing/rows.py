"""The row of a table of linear probes."""

from typing import NamedTuple

from src.network_names import NetworkName
from src.results.experiments import named_in_row
from src.results.tables import Rank


class ProbeRow(NamedTuple):
    """A linear probe: a row of the table of `exec_probe.py`."""

    model: str
    layer: str
    rank: Rank
    accuracy: float
    train_accuracy: float | None  # None: not trained
    loss: float
    seed: int | None
    epochs: int | None
    model_type: str
    dataset: str
    n_images: int | None  # test images
    shortcut: float | None = None  # images had dots

    contents, written_by = "probing", "exec_probe.py -o"

    @property
    def networks(self) -> tuple[NetworkName]:
        """The network."""
        return (named_in_row(self.model, self.model_type, seed=self.seed),)
