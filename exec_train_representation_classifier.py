#!/usr/bin/env python3
"""Train OOD detectors: classifiers of activations, whose energy separates ID from OOD data."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src import cli, results
from src.core.choices.models import MODEL_NAMES
from src.core.choices.training import PENALTIES
from src.core.console import note
from src.core.errors import UserError
from src.results.run import Run

if TYPE_CHECKING:
    import torch

    from src.core.inputs import InputSpec
    from src.datasets.base import InputSet
    from src.ood.finetuning import HalfAndHalf
    from src.training import Settings

CLASSIFIERS = tuple(name for name in MODEL_NAMES if name.startswith("repr_cls_"))


def parser() -> cli.Parser:
    """Return the parser of the options of this script."""
    options = cli.Parser(
        "Train an OOD detector for one layer of a network, for several layers, or for all blocks. "
        "The detector is first trained on the labels, and then fine-tuned to separate ID from OOD data."
    )
    add = options.add_argument
    add_detector(options)
    cli.add_channels_last(options)
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    cli.add_training(options, n_epochs=100)
    add(
        "-dir",
        "--save-dir",
        type=cli.folder,
        required=True,
        help="folder to write to; for several layers, a folder for each layer is made in it",
    )
    add(
        "-sf",
        "--save-frequency",
        type=cli.integer_from_0,
        default=0,
        help="number of epochs of training on the labels between two saved detectors; that of the last epoch is "
        "saved in any case. 0: only that one",
    )
    cli.add_resume(options, overwrite=True)
    add_finetuning_data(options)
    add_finetuning(options)
    add(
        "-fdir",
        "--final-save-dir",
        type=cli.folder,
        default="./models/repr_cls_ood_detectors",
        help="folder of the detector store, to which the detectors are added",
    )
    return options


def add_detector(options: cli.Parser) -> None:
    """Add the network, its layers, and the type of their detectors."""
    add = options.add_argument
    add(
        "source_model_path",
        help=f"checkpoint of the network whose activations are classified: {cli.CHECKPOINT}",
    )
    add("source_model_type", type=cli.network, help=cli.NETWORKS)
    add(
        "source_layer_name",
        help="a layer; several layers, separated by commas; or all. Detectors are trained one after the other",
    )
    add(
        "-m",
        "--model-type",
        choices=CLASSIFIERS,
        metavar="TYPE",
        required=True,
        help=f"type of the detector: one of {', '.join(CLASSIFIERS)}",
    )


def add_finetuning_data(options: cli.Parser) -> None:
    """Add the options that name the ID and the OOD data of fine-tuning."""
    add = options.add_argument
    add(
        "-ftidd",
        "--finetune-id-dataset",
        type=cli.dataset,
        required=True,
        help="ID data set of fine-tuning, with labels; named as for -d",
    )
    add(
        "-ftiddata",
        "--finetune-id-dataset-root",
        default="./data/pytorch",
        help="folder of the ID data set",
    )
    add(
        "-ftoodd",
        "--finetune-ood-dataset",
        type=cli.dataset,
        required=True,
        help="auxiliary OOD data set of fine-tuning; named as for -d",
    )
    add(
        "-ftooddata",
        "--finetune-ood-dataset-root",
        default="./data/pytorch",
        help="folder of the OOD data set",
    )


def add_finetuning(options: cli.Parser) -> None:
    """Add the options of fine-tuning."""
    add = options.add_argument
    add(
        "-fe",
        "--finetune-epochs",
        dest="n_finetune_epochs",
        type=cli.integer_from_0,
        default=20,
        help="number of epochs of fine-tuning",
    )
    add(
        "-m-in",
        "--mean-in-score",
        dest="m_in",
        type=cli.real_number(),
        default=-25.0,
        help="ID samples are penalised for an energy above this margin",
    )
    add(
        "-m-out",
        "--mean-out-score",
        dest="m_out",
        type=cli.real_number(),
        default=-7.0,
        help="OOD samples are penalised for an energy below this margin",
    )
    add(
        "-score",
        "--ood-score",
        dest="score",
        type=penalty,
        choices=PENALTIES,
        default="energy",
        help=f"penalty that is added to the cross-entropy. {cli.described(PENALTIES)}",
    )


def penalty(text: str) -> str:
    """Read the name of a penalty: OE may be written in small letters."""
    return "OE" if text.lower() == "oe" else text


class TrainingInputs(NamedTuple):
    """The inputs that all detectors are trained on."""

    train_set: "InputSet"
    test_set: "InputSet"
    mixed: "HalfAndHalf"  # of fine-tuning: half ID, half OOD


def main(args: Namespace) -> None:
    """Train a detector for each layer, and add it to the store."""
    # The network and its layers
    settings = cli.training_settings(args)
    session, device, spec = cli.begin(args)
    store = results.checkpoints.DetectorStore(args.final_save_dir)
    store.entries()  # raises an error if the store is damaged
    check_finetuning(args)
    (source,) = cli.load_networks(args, cli.SOURCE, images=spec, session=session, device=device)
    images = load_images(args, session, device)
    session.warn_at_chance(source.name, source.network, images.test_set)

    # A detector for each layer, unless its run is finished
    runs = begin_runs(args, source.layers)
    for layer, run in runs.items():
        train_detector(args, run, source, layer, spec, settings, store, images)


def check_finetuning(args: Namespace) -> None:
    """Raise a UserError if the ID data have no labels, ID and OOD data are one data set, or the margins are
    in the wrong order."""
    from src.datasets import dataset_info

    dataset_info(args.finetune_id_dataset, labelled=True)
    id_data = (args.finetune_id_dataset, args.finetune_id_dataset_root)
    ood_data = (args.finetune_ood_dataset, args.finetune_ood_dataset_root)
    if id_data == ood_data:
        raise UserError(
            f"-ftidd and -ftoodd are both {args.finetune_id_dataset}: "
            "no detector separates a data set from itself; choose two data sets"
        )
    if args.m_in >= args.m_out:
        raise UserError(
            f"-m-in {args.m_in:g} is not below -m-out {args.m_out:g}: energies of ID samples have to be below those "
            "of OOD samples; exchange the two margins"
        )


def begin_runs(args: Namespace, layers: Sequence[str]) -> dict[str, Run]:
    """Return the runs of all layers without a finished run, by layer."""
    runs = {}
    for layer in layers:
        folder = Path(args.save_dir)
        if len(layers) > 1:
            folder = folder / layer
        options = vars(args) | {"source_layer_name": layer, "save_dir": str(folder)}
        run = Run(folder, options)
        if not run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
            runs[layer] = run
    return runs


def load_images(
    args: Namespace, session: "results.checkpoints.Session", device: "torch.device"
) -> TrainingInputs:
    """Load the inputs of training, testing and fine-tuning."""
    from src.datasets import load_dataset
    from src.ood.finetuning import HalfAndHalf

    train_set = cli.load_split(args, session, device, train=True)
    test_set = cli.load_split(args, session, device, train=False)
    loading = cli.load_options(args, device)
    id_set = load_dataset(
        args.finetune_id_dataset, args.finetune_id_dataset_root, train=True, **loading
    )
    ood_set = load_dataset(
        args.finetune_ood_dataset, args.finetune_ood_dataset_root, train=True, **loading
    )
    args.finetune_id_dataset_sha256 = id_set.fingerprint
    args.finetune_ood_dataset_sha256 = ood_set.fingerprint
    mixed = HalfAndHalf(id_set, ood_set, like=train_set, batch_size=args.batch_size)
    return TrainingInputs(train_set, test_set, mixed)


def train_detector(
    args: Namespace,
    run: Run,
    source: cli.LoadedNetwork,
    layer: str,
    spec: "InputSpec",
    settings: "Settings",
    store: "results.checkpoints.DetectorStore",
    images: TrainingInputs,
) -> None:
    """Train a classifier of the activations of a layer, fine-tune it, and add it to the store."""
    from src.ood import finetuning

    note(f"detector for {layer}")
    classifier, shape = finetuning.untrained_classifier(
        args.model_type, source.network, layer, spec, seed=args.seed
    )
    run.claim(resume=args.resume)
    file = run.state.get("detector") or results.checkpoints.new_name()
    run.save(detector=file)

    # Training on the labels
    task = finetuning.RepresentationClassification(source.network, layer, classifier)
    if "finetuning" not in run.state:
        results.run.train_network(
            run,
            task,
            images.train_set,
            images.test_set,
            settings,
            save_frequency=args.save_frequency,
        )

    # Fine-tuning, to separate ID from OOD
    task.penalty = finetuning.make_penalty(args.score, m_in=args.m_in, m_out=args.m_out)
    tuning = finetuning.finetuning_settings(settings, n_epochs=args.n_finetune_epochs)
    scores = results.run.finetune_network(run, task, images.mixed, images.test_set, tuning)

    # The store
    entry = {
        "model_type": args.model_type,
        "source_model_type": args.source_model_type,
        "source_model_path": args.source_model_path,
        "source_layer": layer,
        "id_dataset": args.dataset,
        "orig_input_shape": spec.shape,
        "required_input_shape": shape,
        "training_loc": str(run.folder),
        "source_sha256": source.name.weights,
        "finetune_id_dataset": args.finetune_id_dataset,
        "finetune_ood_dataset": args.finetune_ood_dataset,
        "score": args.score,
        "scores": scores,
    }
    store.add(file, classifier.state_dict(), entry)
    run.finish()
    note(f"added {store.folder / file}")


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
