"""The row types of all tables and of `metrics.json`. Importing this spares torch.

The fields stand in the order of the columns, but for columns that a type names as `leading`. What was not measured is
None or NaN. See `records` for how rows become columns.
"""

import math
from typing import Annotated, NamedTuple

from src.networks import NetworkName
from src.results.experiments import Experiment, Pair, named_in_row

Rank = int | None  # None: full


class Metrics(NamedTuple):
    """The measurements of a stitch: `metrics.json`. The public code keeps the accuracy and the two errors alone."""

    accuracy: float  # in [0, 1], like all accuracies
    front_accuracy: float = math.nan  # of the front network alone
    end_accuracy: float = math.nan
    matching_error: float | None = None  # ‖XW+b−Y‖²/‖Y‖² on the matched images; None where nothing was matched
    representation_difference: float = math.nan  # the same ratio, of stitched to end activations of the test images
    agreement: float = math.nan  # share of test images for which stitched and end network predict the same class
    kappa: float = math.nan  # Cohen's kappa of these predictions
    n_images: int | None = None  # test images
    n_matched: int | None = None  # images that it was matched on
    matching_rank: int | None = None  # directions of the source that the matching keeps
    r2_matched: float | None = None  # 1 − residual over variance about the mean, on the matched images
    r2_test: float = math.nan  # the same of stitched against end activations of the test images

    inline = True


class StitchRow(NamedTuple):
    """A finished stitching run: a row of `grid.csv`."""

    pair: Pair
    experiment: Experiment
    metrics: Metrics
    folder: str  # the name of the run's folder

    @property
    def networks(self) -> tuple[NetworkName, NetworkName]:
        """The front and the end network."""
        return self.experiment.front, self.experiment.end

    contents, written_by = "stitching", "exec_stitch.py"
    leading = (
        "front_layer", "end_layer", "stitching_type", "init", "front_stitch_rank", "front_pinv_rank", "seed",
        "accuracy", "front_accuracy", "end_accuracy", "matching_error", "representation_difference", "folder",
        "front_model_path", "end_model_path", "front_model_type", "end_model_type", "dataset", "objective", "n_epochs",
        "n_pinv_init_samples", "agreement", "kappa", "n_images",
    )  # fmt: skip


class StitchValidity(NamedTuple):
    """How stitched activations lie to those of training images; `_own`: the end network's own of the same images."""

    density: float  # less than its own: off the manifold; more: collapsed
    recall: float  # less than its own: collapsed
    frechet: float  # squared distance over the variance of the training images
    density_own: float
    recall_own: float
    frechet_own: float
    noise_dose: float  # share of noise that would give the own activations this density; NaN where that is not defined
    shrinkage_dose: float  # share of the way to the mean that would give them this recall, or this surplus of density

    inline = True

    @property
    def density_ratio(self) -> float:
        """The density over the end network's own; NaN where that is 0."""
        return self.density / self.density_own if self.density_own else math.nan

    @property
    def recall_ratio(self) -> float:
        """The recall over the end network's own; NaN where that is 0."""
        return self.recall / self.recall_own if self.recall_own else math.nan


class EvaluationRow(NamedTuple):
    """A stitch and a detector of its end layer: a row of `ood_evaluation.csv`."""

    pair: Pair
    accuracy: float
    auroc: float  # of telling the stitched activations, as OOD, from the end network's own
    aupr: float
    fpr95: float
    mean_energy: float  # the mean score of the stitched activations, of whatever detector
    mean_id_energy: float
    folder: str  # of the stitching run
    detector: str
    detector_id_data: str  # the data that the detector was made with
    id_dataset: str
    experiment: Experiment  # of the run, but for the data set, whose images were stitched here
    detector_ood_data: str = ""  # the detector needs none
    sanity_dataset: str = ""  # it was not checked
    sanity_auroc: float | None = None  # of telling the sanity-check data from the ID data
    auroc_low: float | None = None  # the interval of 95 %
    auroc_high: float | None = None
    validity: StitchValidity | None = None  # without a pass over training images

    contents, written_by = "OOD evaluation", "exec_eval_stitcher_ood.py"
    leading = (
        "front_layer", "end_layer", "accuracy", "auroc", "aupr", "fpr95", "mean_energy", "mean_id_energy", "folder",
        "detector", "detector_id_data", "detector_ood_data", "id_dataset", "sanity_dataset", "sanity_auroc", "dataset",
        "front_model_path", "end_model_path", "front_model_type", "end_model_type", "stitching_type", "init",
        "objective", "n_epochs", "n_pinv_init_samples", "front_stitch_rank", "front_pinv_rank", "seed",
    )  # fmt: skip


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

    @property
    def networks(self) -> tuple[NetworkName]:
        """The network."""
        return (named_in_row(self.model, self.model_type, seed=self.seed),)

    contents, written_by = "probing", "exec_probe.py -o"


class Null(NamedTuple):
    """A similarity against its values when the images of one network are permuted (Gröger et al. 2026)."""

    p_value: float  # (1 + number of permutations that are as similar) / (1 + number of permutations)
    null_95: float  # 95 % of permutations are less similar
    calibrated: float  # 0 up to `null_95`, 1 for equal representations


class SimilarityRow(NamedTuple):
    """Two layers at two ranks: a row of the table of `exec_compute_low_rank_sim_metrics.py`."""

    model1: str
    model2: str
    layer1: str
    layer2: str
    rank1: Rank
    rank2: Rank
    alignment: str  # how CCA and Procrustes make samples of activations
    n_samples: int
    values: Annotated[dict[str, float], "{key}"]  # by measure, NaN where there is none
    nulls: Annotated[dict[str, Null], "{key}_{part}"]  # by measure; of permutations of all images
    nulls_within: Annotated[dict[str, Null], "{key}_{part}_within"]  # of permutations of the images of each class
    nulls_max: Annotated[dict[str, Null], "{key}_{part}_max"]  # of the most similar of several pairs of layers
    nulls_within_max: Annotated[dict[str, Null], "{key}_{part}_within_max"]  # both
    model1_type: str
    model2_type: str
    dataset: str
    alignment_option: str  # the option: auto, pool or positions
    n_permutations: int | None
    seed: int | None = None  # of fresh weights

    contents, written_by = "similarity", "exec_compute_low_rank_sim_metrics.py -o"

    @property
    def networks(self) -> tuple[NetworkName, NetworkName]:
        """Both networks."""
        first, second = (self.model1, self.model1_type), (self.model2, self.model2_type)
        return named_in_row(*first, seed=self.seed), named_in_row(*second, seed=self.seed)

    @property
    def is_by_position(self) -> bool:
        """Whether positions or tokens are the samples of CCA and Procrustes."""
        return self.alignment in ("positions", "tokens")

    @property
    def is_by_image(self) -> bool:
        """Whether images are the samples of CCA and Procrustes; with alignment `none` there are no samples."""
        return not self.is_by_position and self.alignment != "none"


class Interval(NamedTuple):
    """The ends of an interval of 95 %."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A mean with the ends of its interval of 95 %, None where runs do not say."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Auroc(NamedTuple):
    """How well a detector tells stitched activations from those of the end network."""

    auroc: float
    auroc_low: float  # the interval of 95 %
    auroc_high: float


class Summary(NamedTuple):
    """All runs that stitch the same layers by one method."""

    n_runs: int
    n_networks: int  # pairs of networks
    accuracy: Estimate
    penalty: Estimate  # accuracy of the end network less that of the stitch
    seed_spread: float | None  # largest difference of accuracies between runs on the same networks; None of single ones
    end_accuracy: float | None
    agreement: float | None
    kappa: float | None
    representation_difference: float | None

    inline = True


class IntervalRow(NamedTuple):
    """A pair of layers stitched by one method: a row of `grid_intervals.csv`."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    pair: Pair
    summary: Summary


class VerdictRow(NamedTuple):
    """A pair of layers stitched by one method, and the verdict on it: a row of `verdict.csv`."""

    method: str
    networks: str
    pair: Pair
    verdict: str
    reason: str
    control: str | None  # self: a layer stitched to itself; fresh: the front network was never trained
    summary: Summary
    p_below: float | None  # of the penalty being below the tolerance, adjusted for all pairs of the method
    p_above: float | None
    side: str | None  # in distribution, or on which side of it
    validity: StitchValidity | None  # means over runs
    aurocs: Annotated[dict[str, Auroc], "{part}_{key}"]  # by detector
    similarities: Annotated[dict[str, float], "{key}"]  # by column of a table of similarity


class ComparisonRow(NamedTuple):
    """The accuracies of a pair of layers in two folders of stitches, and the second less the first."""

    pair: Pair
    accuracy_1: float
    accuracy_2: float
    difference: float


class RankTestRow(NamedTuple):
    """A sensitivity or specificity test of a measure: a row of the table of `misc/rank_statistics.py`."""

    test: str
    measure: str
    setting: str  # the networks, and of stitches the method
    layer1: str
    layer2: str
    varied: str  # layer1 or layer2
    n: int  # ranks, or layers
    spearman: float | None = None
    spearman_p: float | None = None
    kendall: float | None = None
    kendall_p: float | None = None
    place: float | None = None  # of the corresponding layer; 1 is the most similar
    note: str = ""


class TruthScore(NamedTuple):
    """A score of a measure in a test of ground truth; higher is better."""

    value: float
    low: float  # the interval of 95 %, by a bootstrap over networks
    high: float
    chance: float  # of a measure that orders at random


class TruthRow(NamedTuple):
    """A measure in a test of ground truth: a row of the table of `misc/ground_truth.py`."""

    test: str  # an intervention, a difference of outputs, or layers
    measure: str
    layer: str  # empty: the mean over layers
    scores: Annotated[dict[str, TruthScore], "{key}_{part}"]  # auprc, conformity, spearman, as far as the test has them
    n_networks: int
    both_directions: bool  # the mean over both, of a measure of stitches

    contents, written_by = "ground truth", "misc/ground_truth.py"


class DepthRow(NamedTuple):
    """A layer of two networks, means over pairs of them: a row of the table of `misc/collect_results.py --curves`."""

    quantity: str  # accuracy, density ratio, recall ratio, similarity, distance
    line: str  # a method of stitching, or a measure
    layer: str
    value: float
    low: float  # the interval of 95 %, by a bootstrap over networks; NaN of few
    high: float
    n_networks: int
    n_pairs: int

    contents, written_by = "depth", "misc/collect_results.py --curves"


class EpochRow(NamedTuple):
    """An epoch of training: a row of `training_logs.csv`."""

    train_acc: float | None  # None: not measured
    train_loss: float
    val_acc: float
    val_loss: float

    contents, written_by = "training", "exec_stitch.py"


class FinetuningRow(NamedTuple):
    """An epoch of fine-tuning a detector: a row of `ft_logs.csv`."""

    ft_loss: float
    ce_loss: float
    train_acc: float
    val_ce_loss: float
    val_acc: float
