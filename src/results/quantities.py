"""The measured quantities of a stitch, with titles and scales, and the columns of the frame of results.

A new quantity needs a function that measures it, a field that keeps its value, and an entry in
`QUANTITIES` under the name of the field. Its `measured_by` says where the field is:

    STITCHING   `Metrics` in `src.core.values`
    SKILL       `EVALUATIONS`, and the rows of `src.judge`
    DETECTOR    `OODMetrics` in `src.statistics.detection`
    VERDICT     `Verdict` in `src.verdict`

Printed matrices, heat maps, curves and the table of all measurements read the entry.
`misc/docs/files.md` repeats it.

This module does not import torch.
"""

import math
from typing import NamedTuple

from src.core.values import Rank
from src.results.tables import Layout, json_object

# Scripts that measure a quantity: their tables have its column
STITCHING = "stitching"
SKILL = "skill"  # the evaluation, whatever the detectors
DETECTOR = "detector"  # the OOD evaluation, one value for each detector
VERDICT = "verdict"

# Reports that show a quantity
IN_EVALUATION = "evaluation"  # matrices and heat maps of the OOD evaluation
IN_VERDICT = "verdict"  # matrices and heat maps of the verdict
IN_CURVES = "curves"  # curves over depth


# Columns of the frame of results, which `src.results.frame` exports
SIDES = ("front", "end")
NETWORKS = ["front_network", "end_network"]
GROUPS = ["front_group", "end_group"]
TYPES = ["front_type", "end_type"]
TRAINING = ["front_training", "end_training"]
LAYERS = ["front_layer", "end_layer"]
DEPTHS = ["front_relative_depth", "end_relative_depth"]
ESTIMATES = ("accuracy", "accuracy_drop", "skill", "skill_at_end")
INTERVALS = [f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")]
# The first columns of every frame; those of judged stitches, measures, detectors and what was measured follow
COLUMNS = [
    "method",
    *NETWORKS,
    *GROUPS,
    *TYPES,
    *LAYERS,
    *DEPTHS,
    *INTERVALS,
    "verdict",
    "reason",
]
# Types of columns whose values may be missing; the other columns are texts, or have the type of their values
FLOATS = [
    *(*INTERVALS, *DEPTHS),
    *("seed_spread", "front_accuracy", "end_accuracy", "p_below", "p_above"),
    *("correlation", "baseline", "correlation_at_end", "baseline_at_end"),
    *("r2_fit", "r2_test"),
]
INTEGERS = [
    *("n_runs", "n_networks", "n_images", "seed", "n_epochs"),
    *("front_depth", "end_depth", "front_rank", "end_rank"),
]
DTYPES = dict.fromkeys(FLOATS, "float64") | dict.fromkeys(INTEGERS, "Int64")
# Of judged stitches, see `misc/docs/files.md`
JUDGED = [
    *("networks", "control", "n_runs", "n_networks", "folders", "seed_spread"),
    *("front_accuracy", "end_accuracy", "p_below", "p_above"),
    *("correlation", "baseline", "correlation_at_end", "baseline_at_end"),
    *("front_depth", "end_depth", "front_weights", "end_weights", "both_ways", "same_run"),
    "stitching_type",
]
AUROC = "auroc_"  # begins the column of a detector


OF_IMAGES = ("shortcut", "train_images", "test_images")
# Fingerprints of images and weights are their first digits; `shortcut`: images had dots of this strength
PROBES = Layout(
    "probing",
    "exec_probe.py -o",
    {
        "model": str,
        "layer": str,
        "rank": Rank,
        "accuracy": float,  # on the test images
        "train_accuracy": float | None,  # None: not trained
        "loss": float,  # on the test images
        "seed": int | None,
        "epochs": int | None,
        "model_type": str,
        "dataset": str,
        "n_images": int | None,  # test images
        "shortcut": float | None,
        "model_weights": str | None,
        "train_images": str | None,
        "test_images": str | None,
        "further_options": json_object,
    },
    optional=("model_weights", *OF_IMAGES, "further_options"),
)
SIMILARITIES = Layout(
    "similarity",
    "exec_compute_low_rank_sim_metrics.py -o",
    {
        "model1": str,
        "model2": str,
        "layer1": str,
        "layer2": str,
        "rank1": Rank,
        "rank2": Rank,
        "alignment": str,  # how CCA and Procrustes make samples of activations
        "n_samples": int,
        "model1_type": str,
        "model2_type": str,
        "dataset": str,
        "alignment_option": str,  # auto or pool
        "n_permutations": int | None,
        "seed": int | None,  # of randomly initialised weights
        "shortcut": float | None,
        "model1_weights": str | None,
        "model2_weights": str | None,
        "test_images": str | None,
        # The share of the network's blocks that a pass to the layer computes
        "relative_depth1": float | None,
        "relative_depth2": float | None,
        "further_options": json_object,
    },
    optional=(
        *("model1_weights", "model2_weights", "relative_depth1", "relative_depth2"),
        *(*OF_IMAGES, "further_options"),
    ),
)

# Skill: a name that ends in `at_end` is of the end layer, the others are of the output; `_low` and `_high` are the
# ends of intervals of 95 % over images. Further columns are the measurements by detectors, such as `auroc_energy`.
# A measurement of activations that are not finite is NaN.
EVALUATIONS = Layout(
    "evaluation of stitches",
    "exec_eval_stitcher_ood.py",
    {
        "folder": str,  # of the stitching run
        "front_layer": str,
        "end_layer": str,
        "dataset": str | None,  # of the evaluation
        "shortcut": float | None,
        "train_images": str | None,
        "test_images": str | None,
        "id_dataset": str | None,  # the activations that detectors compare with
        "sanity_dataset": str | None,  # None: the detectors were not checked
        "accuracy": float | None,
        "correlation": float,
        "baseline": float,
        "skill": float,
        "skill_low": float,
        "skill_high": float,
        "correlation_at_end": float,
        "baseline_at_end": float,
        "skill_at_end": float,
        "skill_at_end_low": float,
        "skill_at_end_high": float,
        "n_images": int,
        "n_classes": int,  # of the end network
        "width": int,  # of the random features in the baseline: the rank of the front's covariance
        "n_copies": int,  # untrained copies side by side in the baseline, at most
        "rows_per_channel": float,  # that the widest features of the baseline were fitted to
    },
    optional=("dataset", *OF_IMAGES, "id_dataset", "sanity_dataset", "accuracy"),
)


class Quantity(NamedTuple):
    """A measured quantity of stitches, with its title, scale and source."""

    title: str  # in figures and printed tables
    measured_by: str  # STITCHING, SKILL, DETECTOR or VERDICT
    # The values of a different and of a similar stitch, where the colours of figures end; None:
    # neither high nor low is similar
    scale: tuple[float, float] | None = None
    possible: tuple[float, float] = (-math.inf, math.inf)  # the lowest and the highest value
    is_two_sided: bool = False  # similar in the middle of `scale`, different at both ends
    shown_in: tuple[str, ...] = ()

    def similarity(self, value: float) -> float:
        """Convert a value to a similarity, which is higher for more similar stitches.

        Returns:
            The value, its negative, or its negative distance from the middle of the scale.

        Raises:
            ValueError: the quantity has no scale.
        """
        if self.scale is None:
            raise ValueError(f"neither high nor low values of {self.title} are similar")
        different, similar = self.scale
        if self.is_two_sided:
            return -abs(value - (different + similar) / 2)
        return value if similar > different else -value


def shown_in(report: str) -> dict[str, Quantity]:
    """Return the quantities that a report shows, by column."""
    return {name: quantity for name, quantity in QUANTITIES.items() if report in quantity.shown_in}


def measured_by(*sources: str) -> dict[str, Quantity]:
    """Return the quantities that the given kinds of measurement yield, by column."""
    return {
        name: quantity for name, quantity in QUANTITIES.items() if quantity.measured_by in sources
    }


QUANTITIES = {
    # Stitching
    "accuracy": Quantity(
        "accuracy",
        STITCHING,
        scale=(0, 1),
        possible=(0, 1),
        shown_in=(IN_EVALUATION, IN_CURVES),
    ),
    "front_accuracy": Quantity("front accuracy", STITCHING),
    "end_accuracy": Quantity("end accuracy", STITCHING),
    "accuracy_drop": Quantity(
        "accuracy drop (percentage points)",
        STITCHING,
        scale=(1, 0),
        shown_in=(IN_VERDICT, IN_CURVES),
    ),
    "matching_error": Quantity(
        "matching error",
        STITCHING,
        scale=(1, 0),
    ),
    "representation_difference": Quantity(
        "representation difference",
        STITCHING,
        scale=(1, 0),
    ),
    "agreement": Quantity(
        "agreement",
        STITCHING,
        scale=(0, 1),
    ),
    "kappa": Quantity(
        "κ",
        STITCHING,
        scale=(0, 1),
    ),
    "n_images": Quantity("test images", STITCHING),
    "n_fitting_samples": Quantity(
        "fitting samples",
        STITCHING,
    ),
    "matching_rank": Quantity(
        "matching rank",
        STITCHING,
    ),
    "r2_fit": Quantity(
        "R² on fitting samples",
        STITCHING,
        scale=(0, 1),
    ),
    "r2_test": Quantity(
        "R²",
        STITCHING,
        scale=(0, 1),
    ),
    # Verdict
    "seed_spread": Quantity(
        "spread over seeds",
        VERDICT,
    ),
    "p_below": Quantity(
        "p below",
        VERDICT,
    ),
    "p_above": Quantity(
        "p above",
        VERDICT,
    ),
    # OOD evaluation, by detector
    "auroc": Quantity(
        "AUROC",
        DETECTOR,
        scale=(0, 1),
        is_two_sided=True,
        shown_in=(IN_EVALUATION,),
    ),
    "aupr": Quantity(
        "AUPR",
        DETECTOR,
        scale=(1, 0),
        shown_in=(IN_EVALUATION,),
    ),
    "fpr95": Quantity(
        "FPR95",
        DETECTOR,
        scale=(0, 1),
        shown_in=(IN_EVALUATION,),
    ),
    "mean_energy": Quantity("mean energy", DETECTOR),
    "mean_id_energy": Quantity("mean ID energy", DETECTOR),
    "sanity_auroc": Quantity(
        "sanity AUROC",
        DETECTOR,
    ),
    # The evaluation, whatever the detectors
    "skill": Quantity(
        "skill at the output",
        SKILL,
        scale=(0, 1),
        possible=(-math.inf, 1),
        shown_in=(IN_VERDICT, IN_CURVES),
    ),
    "correlation": Quantity(
        "within-class correlation",
        SKILL,
        scale=(0, 1),
        possible=(-1, 1),
    ),
    "baseline": Quantity(
        "baseline",
        SKILL,
        possible=(-1, 1),
    ),
    "skill_at_end": Quantity(
        "skill at the end layer",
        SKILL,
        scale=(0, 1),
        possible=(-math.inf, 1),
        shown_in=(IN_VERDICT,),
    ),
    "correlation_at_end": Quantity(
        "within-class correlation at the end layer",
        SKILL,
        scale=(0, 1),
        possible=(-1, 1),
    ),
    "baseline_at_end": Quantity(
        "baseline at the end layer",
        SKILL,
        possible=(-1, 1),
    ),
}
