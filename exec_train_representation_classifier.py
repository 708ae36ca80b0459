#!/usr/bin/env python3
"""Train OOD detectors: classifiers of the activations of a network whose energy tells ID from OOD
data."""

import sys

from src import cli
from src.choices import LR_STEPS, PENALTIES
from src.choices.models import MODEL_NAMES

CLASSIFIERS = tuple(name for name in MODEL_NAMES if name.startswith("repr_cls_"))


def parser() -> cli.Parser:
    options = cli.Parser(
        "Train an OOD detector for one layer of a network, for several, or for all of its blocks."
    )
    add = options.add_argument
    add("source_model_path", help=f"checkpoint of the network to detect for: {cli.CHECKPOINT}")
    add("source_model_type", type=cli.network, help=cli.NETWORKS)
    add(
        "source_layer_name",
        help="layer; several with commas between them, or all: one detector after the other",
    )
    add("-m", "--model-type", choices=CLASSIFIERS, required=True, help="the detector")
    cli.add_channels_last(options)
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    cli.add_training(options, n_epochs=100)
    add(
        "-dir",
        "--save-dir",
        required=True,
        help="folder to write to; with several layers, a folder in it for each",
    )
    add(
        "-sf",
        "--save-frequency",
        type=cli.whole_number(0),
        default=0,
        help="save every so many epochs of pre-training, and the last one; 0: the last one only",
    )
    cli.add_resume(options, overwrite=True)
    add(
        "--resume-from",
        help="checkpoint of a classifier to go on from; with -e 0 it is only fine-tuned",
    )
    add(
        "-ftidd", "--finetune-id-dataset", type=cli.dataset, required=True, help="ID dataset, as -d"
    )
    add(
        "-ftiddata",
        "--finetune-id-dataset-root",
        default="./data/pytorch",
        help="folder of the ID dataset",
    )
    add(
        "-ftoodd",
        "--finetune-ood-dataset",
        type=cli.dataset,
        required=True,
        help="auxiliary OOD dataset, as -d",
    )
    add(
        "-ftooddata",
        "--finetune-ood-dataset-root",
        default="./data/pytorch",
        help="folder of the OOD dataset",
    )
    add(
        "-fe",
        "--finetune-epochs",
        dest="n_finetune_epochs",
        type=cli.whole_number(0),
        default=20,
        help="epochs",
    )
    add("--finetune-decay", choices=LR_STEPS, default="updates",
        help="what is counted to -fe // 2, where the learning rate drops to a tenth; published: updates")  # fmt: skip
    add("-m-in", "--mean-in-score", dest="m_in", type=cli.real_number(), default=-25.0,
        help="energy that ID is to stay below")  # fmt: skip
    add("-m-out", "--mean-out-score", dest="m_out", type=cli.real_number(), default=-7.0,
        help="energy that OOD is to stay above")  # fmt: skip
    add("-score", "--ood-score", dest="score", type=lambda text: "OE" if text.lower() == "oe" else text,
        choices=PENALTIES, default="energy",
        help="what is added to the cross-entropy: the energy hinge, or outlier exposure")  # fmt: skip
    add(
        "-fdir",
        "--final-save-dir",
        default="./models/repr_cls_ood_detectors",
        help="folder of the detector store",
    )
    return options


def train_detectors(args) -> None:
    """Run the experiment."""
    from src.datasets import dataset_info
    from src.ood.store import DetectorStore
    from src.runtime import device_of
    from src.session import Session

    # The network and its layers.
    settings = cli.training_settings(args)
    device = device_of(args.gpu)
    store = DetectorStore(args.final_save_dir)
    store.entries()  # which may be damaged
    spec = dataset_info(args.dataset, labelled=True).spec
    check_finetuning_data(args)
    source = cli.load_network(args, cli.SOURCE, spec, session=Session(), device=device)

    # A detector for each layer, unless its run is finished.
    runs = begin_runs(args, source.layers)
    images = load_images(args, device)
    for layer, run in runs.items():
        train_detector(args, run, source, layer, spec, settings, store, *images)


def check_finetuning_data(args) -> None:
    """Raise a UserError if the ID data have no labels, or ID and OOD data are one set."""
    from src.datasets import dataset_info
    from src.errors import UserError

    dataset_info(args.finetune_id_dataset, labelled=True)
    id_data = (args.finetune_id_dataset, args.finetune_id_dataset_root)
    ood_data = (args.finetune_ood_dataset, args.finetune_ood_dataset_root)
    if id_data == ood_data:
        raise UserError(
            f"-ftidd and -ftoodd are both {args.finetune_id_dataset}: no detector tells it from itself; choose two sets"
        )


def begin_runs(args, layers) -> dict:
    """Return a run for each layer that has no finished one."""
    from pathlib import Path

    from src.results.run import Run

    runs = {}
    for layer in layers:
        folder = Path(args.save_dir, layer) if len(layers) > 1 else Path(args.save_dir)
        run = Run.in_folder(
            folder, vars(args) | {"source_layer_name": layer, "save_dir": str(folder)}
        )
        if not run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
            runs[layer] = run
    return runs


def load_images(args, device):
    """Return the training and the test images, and the batches of fine-tuning, half ID and half
    OOD."""
    from src.datasets import load_dataset
    from src.ood.finetuning import HalfAndHalf

    loading = cli.load_options(args, device)
    train_set = load_dataset(args.dataset, args.dataset_root, train=True, **loading)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **loading)
    id_set = load_dataset(
        args.finetune_id_dataset, args.finetune_id_dataset_root, train=True, **loading
    )
    ood_set = load_dataset(
        args.finetune_ood_dataset, args.finetune_ood_dataset_root, train=True, **loading
    )
    mixed = HalfAndHalf(id_set, ood_set, like=train_set, batch_size=args.batch_size)
    return train_set, test_set, mixed


def train_detector(
    args, run, source, layer, spec, settings, store, train_set, test_set, mixed
) -> None:
    """Train a classifier of the activations of one layer, fine-tune it, and add it to the store."""
    from src.console import note
    from src.ood import finetuning
    from src.ood.store import new_name
    from src.training.recorded import train_network

    note(f"detector for {layer}")
    classifier, shape = finetuning.fresh_classifier(
        args.model_type, source.network, layer, spec, seed=args.seed, resume_from=args.resume_from
    )
    run.claim(resume=args.resume)
    file = run.state.get("detector") or new_name()
    run.save(detector=file)

    # Pre-training on the labels.
    task = finetuning.RepresentationClassification(source.network, layer, classifier)
    if "finetuning" not in run.state:
        train_network(run, task, train_set, test_set, settings, save_frequency=args.save_frequency)

    # Fine-tuning, which tells ID from OOD.
    task.penalty = finetuning.make_penalty(args.score, m_in=args.m_in, m_out=args.m_out)
    tuning = finetuning.finetuning_settings(
        settings, n_epochs=args.n_finetune_epochs, decay=args.finetune_decay
    )
    scores = finetuning.finetune(run, task, mixed, test_set, tuning)

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


def main(argv=None) -> int:
    return cli.run(parser(), train_detectors, argv)


if __name__ == "__main__":
    sys.exit(main())
