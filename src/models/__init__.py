"""The networks of the suite, built by name, and `Network`, which cuts a network at its layers."""

from src.core.choices.models import MODEL_NAMES
from src.models.building import build_model
from src.models.network import Network, activations_of_both, inputs_of

__all__ = ["MODEL_NAMES", "Network", "activations_of_both", "build_model", "inputs_of"]
