"""The command line of all scripts: the parser, types and groups of options, and exit codes.

This package does not import torch, so that `--help` and mistyped options take no second.
"""

# ruff: noqa: F401 - the names that scripts use
from src.cli.groups import (
    CHECKPOINT,
    END,
    FRONT,
    MODEL1,
    MODEL2,
    N_COMPARED,
    NETWORKS,
    PROBED,
    SAVED,
    SOURCE,
    LoadedNetwork,
    NetworkOptions,
    accuracy_of,
    add_channels_last,
    add_clipping,
    add_data,
    add_gpu,
    add_interventions,
    add_matching,
    add_memory,
    add_optimizer,
    add_own_types,
    add_resume,
    add_scheduler,
    add_similarity,
    add_training,
    batches_of,
    begin,
    claim,
    load_networks,
    load_options,
    load_split,
    named_network,
    note_new_run,
    training_settings,
)
from src.cli.parser import Parser, run
from src.cli.types import (
    csv_file,
    descending,
    described,
    features_file,
    folder,
    html_file,
    integer_from,
    integer_from_0,
    integer_from_1,
    name_or_code,
    names_of,
    network,
    rank,
    real_above_0,
    real_from_0,
    real_number,
    results_folder,
)
from src.core.choices.datasets import dataset_name as dataset
