"""The quantities that are measured of a stitch, each with its title, scale and description.

A new quantity needs a function that measures it, a field that keeps its value, and an entry in
`QUANTITIES` under the name of the field. Its `measured_by` says where the field is:

    STITCHING   `Metrics` in `src.values`
    SKILL       `SkillRow` in `src.results.evaluation_rows`, and `JudgedStitch` in `src.judge`
    DETECTOR    `OODMetrics` in `src.statistics.detection`, and `EvaluationRow` in `src.results`
    VERDICT     `Verdict` in `src.verdict`, and `VerdictRow` in `src.results`

Printed matrices, heat maps, curves and the table of all measurements read the entry.
`misc/docs/files.md` repeats it.

This module does not import torch.
"""

import math
from typing import NamedTuple

# Scripts that measure a quantity: their tables have its column
STITCHING = "stitching"
SKILL = "skill"  # the evaluation, whatever the detectors
DETECTOR = "detector"  # the OOD evaluation, one value for each detector
VERDICT = "verdict"

# Reports that show a quantity
IN_EVALUATION = "evaluation"  # matrices and heat maps of the OOD evaluation
IN_VERDICT = "verdict"  # matrices and heat maps of the verdict
IN_CURVES = "curves"  # curves over depth


class Quantity(NamedTuple):
    """The meaning of a column of stitches."""

    title: str  # in figures and printed tables
    measured_by: str  # STITCHING, SKILL, DETECTOR or VERDICT
    description: str  # a sentence without its full stop
    # The values of a different and of a similar stitch, where the colours of figures end; None:
    # neither high nor low is similar
    scale: tuple[float, float] | None = None
    possible: tuple[float, float] = (-math.inf, math.inf)  # the lowest and the highest value
    is_two_sided: bool = False  # similar in the middle of `scale`, different at both ends
    shown_in: tuple[str, ...] = ()

    def similarity(self, value: float) -> float:
        """Turn a value into a similarity, which is higher for more similar stitches.

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
    """Return the quantities that the sources measure, by column."""
    return {
        name: quantity for name, quantity in QUANTITIES.items() if quantity.measured_by in sources
    }


QUANTITIES = {
    # Stitching
    "accuracy": Quantity(
        "accuracy",
        STITCHING,
        "share of the test images whose label the stitched network predicts",
        scale=(0, 1),
        possible=(0, 1),
        shown_in=(IN_EVALUATION, IN_CURVES),
    ),
    "front_accuracy": Quantity("front accuracy", STITCHING, "accuracy of the front network alone"),
    "end_accuracy": Quantity("end accuracy", STITCHING, "accuracy of the end network alone"),
    "accuracy_drop": Quantity(
        "accuracy_drop",
        STITCHING,
        "accuracy of the end network minus that of the stitched network; negative where the stitch is "
        "more accurate",
        scale=(1, 0),
        shown_in=(IN_VERDICT, IN_CURVES),
    ),
    "matching_error": Quantity(
        "matching error",
        STITCHING,
        "‖XW+b−Y‖²/‖Y‖² on the fitting samples (training images that the map was fitted to); "
        "empty without a fit",
        scale=(1, 0),
    ),
    "representation_difference": Quantity(
        "representation difference",
        STITCHING,
        "‖H−G‖²/‖G‖² over all test images, of the stitched activations H and the end "
        "network's own G",
        scale=(1, 0),
    ),
    "agreement": Quantity(
        "agreement",
        STITCHING,
        "share of the test images for which stitched and end network predict the same class, right "
        "or wrong",
        scale=(0, 1),
    ),
    "kappa": Quantity(
        "κ",
        STITCHING,
        "Cohen's κ of the classes that stitched and end network predict: their agreement "
        "beyond chance",
        scale=(0, 1),
    ),
    "n_images": Quantity("test images", STITCHING, "number of test images"),
    "n_fitting_samples": Quantity(
        "fitting samples",
        STITCHING,
        "number of fitting samples",
    ),
    "matching_rank": Quantity(
        "matching rank",
        STITCHING,
        "number of directions of the source that the fit uses",
    ),
    "r2_fit": Quantity(
        "R² on fitting samples",
        STITCHING,
        "1 − ‖XW+b−Y‖²/‖Y−mean‖² on the fitting samples",
        scale=(0, 1),
    ),
    "r2_test": Quantity(
        "R²",
        STITCHING,
        "1 − ‖H−G‖²/‖G−mean‖² over all test images, of the stitched activations H and the end "
        "network's own G",
        scale=(0, 1),
    ),
    # Verdict
    "seed_spread": Quantity(
        "spread over seeds",
        VERDICT,
        "largest difference between the accuracies of runs on the same networks",
    ),
    "p_below": Quantity(
        "p below",
        VERDICT,
        "p-value of the test that the accuracy drop is below the tolerance, adjusted for the number "
        "of tests",
    ),
    "p_above": Quantity(
        "p above",
        VERDICT,
        "p-value of the test that the accuracy drop is above the tolerance, adjusted likewise",
    ),
    # OOD evaluation, by detector
    "auroc": Quantity(
        "AUROC",
        DETECTOR,
        "area under the ROC curve of the detector for stitched activations (OOD) against the end "
        "network's own (ID); 1: it always tells the two apart, ½: it does not, below ½: the stitched "
        "activations look more typical than the network's own",
        scale=(0, 1),
        is_two_sided=True,
        shown_in=(IN_EVALUATION,),
    ),
    "aupr": Quantity(
        "AUPR",
        DETECTOR,
        "area under the precision-recall curve of the detector, with the end network's own "
        "activations as the positive class",
        scale=(1, 0),
        shown_in=(IN_EVALUATION,),
    ),
    "fpr95": Quantity(
        "FPR95",
        DETECTOR,
        "share of the stitched activations that the detector accepts when it accepts 95 percent "
        "of the end network's own",
        scale=(0, 1),
        shown_in=(IN_EVALUATION,),
    ),
    "mean_energy": Quantity(
        "mean energy", DETECTOR, "mean score of the stitched activations, by whichever detector"
    ),
    "mean_id_energy": Quantity(
        "mean ID energy", DETECTOR, "mean score of the end network's own activations"
    ),
    "sanity_auroc": Quantity(
        "sanity AUROC",
        DETECTOR,
        "AUROC of the detector for the sanity-check data of `-scd` (OOD) against the ID data",
    ),
    # The evaluation, whatever the detectors
    "skill": Quantity(
        "skill",
        SKILL,
        "(correlation − baseline) / (1 − baseline) at the output: 0 for a stitch that follows the end network "
        "within a class no better than its baseline, 1 for the end network itself",
        scale=(0, 1),
        possible=(-math.inf, 1),
        shown_in=(IN_VERDICT, IN_CURVES),
    ),
    "correlation": Quantity(
        "within-class correlation",
        SKILL,
        "correlation of the logits of stitched and end network, over test images and classes, less the "
        "mean of each image and then the mean of each predicted class",
        scale=(0, 1),
        possible=(-1, 1),
    ),
    "baseline": Quantity(
        "baseline",
        SKILL,
        "the largest such correlation of stitches by `covariance` whose front is the end network's predicted class "
        "beside untrained features that are no wider than the front: untrained copies of the end network, or random "
        "features of the input",
        possible=(-1, 1),
    ),
    "skill_at_end": Quantity(
        "skill at the end layer",
        SKILL,
        "the same as skill, of the activations at the end layer in place of the logits",
        scale=(0, 1),
        possible=(-math.inf, 1),
        shown_in=(IN_VERDICT,),
    ),
    "correlation_at_end": Quantity(
        "within-class correlation at the end layer",
        SKILL,
        "correlation of the activations of stitched and end network at the end layer, over test images "
        "and coordinates, less the mean of each predicted class",
        scale=(0, 1),
        possible=(-1, 1),
    ),
    "baseline_at_end": Quantity(
        "baseline at the end layer",
        SKILL,
        "the baseline of the correlation at the end layer",
        possible=(-1, 1),
    ),
}
