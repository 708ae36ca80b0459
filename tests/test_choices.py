"""A new measure or score is one row of a table beside its function: options, tables and figures
take it.

(Each network, data set, objective and closed form that exists is such a row, and is built from it
where it is tested.)"""

from src.choices import OPTIMIZERS
from src.choices.datasets import DATASET_NAMES, INTERVENTIONS
from src.choices.models import MODEL_NAMES
from src.choices.scores import SCORES
from src.choices.similarity import MEASURES
from src.choices.stitching import FORMS, OBJECTIVES
from src.datasets import interventions, registry
from src.models import zoo
from src.ood import detectors
from src.similarity import measures
from src.stitching import closed_forms, objectives
from src.training import loop


def test_each_row_has_its_function_beside_the_functions_of_its_kind():
    assert measures.FUNCTIONS.keys() == MEASURES.keys()
    assert detectors.DETECTORS.keys() == SCORES.keys()
    assert closed_forms.SOLVERS.keys() == FORMS.keys()
    assert objectives.OBJECTIVES.keys() == OBJECTIVES.keys()
    assert tuple(zoo.MODELS) == MODEL_NAMES
    assert tuple(registry.DATASETS) == DATASET_NAMES
    assert interventions.INTERVENTION_FUNCTIONS.keys() == INTERVENTIONS.keys()
    assert loop.OPTIMIZERS.keys() == set(OPTIMIZERS)
