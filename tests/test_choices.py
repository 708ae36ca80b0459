"""A new measure or score is one row of a table beside its function: options, tables and figures
take it.

(Each network, data set, objective and closed form that exists is such a row, and is built from it
where it is tested.)"""

import pytest

from src.choices import OPTIMIZERS
from src.choices.datasets import DATASET_NAMES, INTERVENTIONS
from src.choices.models import MODEL_NAMES
from src.choices.scores import SCORES, OodScore
from src.choices.similarity import GRAMS, MEASURES, Measure
from src.choices.stitching import FORMS, OBJECTIVES
from src.datasets import interventions, registry
from src.models import zoo
from src.ood import detectors
from src.similarity import measures
from src.stitching import closed_forms, objectives
from src.training import loop
from tests.commands import MODEL, ON_DIGITS, parser_of, read_csv, run

pytestmark = pytest.mark.usefixtures("few_test_images", "in_tmp_path")

DM = [*ON_DIGITS, "--mod-only-stitch", "-i", "pinv"]


def help_of(script: str) -> str:
    return " ".join(parser_of(script).format_help().split())


def test_each_row_has_its_function_beside_the_functions_of_its_kind():
    assert measures.FUNCTIONS.keys() == MEASURES.keys()
    assert detectors.DETECTORS.keys() == SCORES.keys()
    assert closed_forms.SOLVERS.keys() == FORMS.keys()
    assert objectives.OBJECTIVES.keys() == OBJECTIVES.keys()
    assert tuple(zoo.MODELS) == MODEL_NAMES
    assert tuple(registry.DATASETS) == DATASET_NAMES
    assert interventions.INTERVENTION_FUNCTIONS.keys() == INTERVENTIONS.keys()
    assert loop.OPTIMIZERS.keys() == set(OPTIMIZERS)


def test_a_measure_of_similarity(monkeypatch, digit_networks):
    def same_norms(of_layer):
        return of_layer.centred.diagonal(dim1=1, dim2=2).sqrt().diag_embed()

    monkeypatch.setitem(measures.FUNCTIONS, "norms", same_norms)
    row = Measure("Norms", "cosine of norms", "same norms?", GRAMS, 1, 0)
    monkeypatch.setitem(MEASURES, "norms", row)
    assert "norms: same norms?" in help_of("exec_compute_low_rank_sim_metrics.py")
    given = [*digit_networks, MODEL, MODEL, "layer3.0", "layer3.0,layer4.0", *ON_DIGITS, "-n", "40"]
    options = ["--metrics", "norms", "--permutations", "19", "--verbose", "-o", "n.csv"]
    printed = run("exec_compute_low_rank_sim_metrics.py", *given, *options).out
    assert "Norms:\nModel1 rank None:\n\tModel2 rank None: 0.9" in printed
    first, _ = read_csv("n.csv")
    assert 0.9 < float(first["norms"]) <= 1 and float(first["norms_p_value"]) >= 1 / 20


def test_an_ood_score(monkeypatch, stitch):
    class Norm(detectors.Detector):
        """How far the norm is from that of the mean."""

        normalised = False

        def fit(self) -> None:
            self.norm = self.moments.mean.norm()

        def score(self, activations):
            return (self.features(activations).norm(dim=1) - self.norm).abs()

    monkeypatch.setitem(detectors.DETECTORS, "norm", Norm)
    monkeypatch.setitem(SCORES, "norm", OodScore("norm", "another norm?"))
    assert "norm: another norm?" in help_of("exec_eval_stitcher_ood.py")
    stitch("layer4.0", "layer4.1", *DM, "-e", "0", "-dir", "runs")
    run("exec_eval_stitcher_ood.py", "results/runs", *ON_DIGITS, "--detector", "norm")
    (row,) = read_csv("results/runs/ood_evaluation_norm.csv")
    assert row["detector"] == "norm" and float(row["mean_energy"]) >= 0
