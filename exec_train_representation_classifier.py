#!/usr/bin/env python3
"""Train OOD detectors: classifiers of the activations of a network whose energy tells ID from OOD data."""

import sys

from src import cli
from src.choices import LR_STEPS, OOD_SCORES
from src.choices.models import MODEL_NAMES

CLASSIFIERS = tuple(name for name in MODEL_NAMES if name.startswith("repr_cls_"))


def parser() -> cli.Parser:
    options = cli.Parser("Train an OOD detector for one layer of a network, for several, or for all of its blocks.")
    add = options.add_argument
    add("source_model_path", help=f"checkpoint of the network to detect for: {cli.CHECKPOINT}")
    add("source_model_type", type=cli.network, help=cli.NETWORKS)
    add("source_layer_name", help="layer; several with commas between them, or all: one detector after the other")
    add("-m", "--model-type", choices=CLASSIFIERS, required=True, help="the detector")
    cli.add_channels_last(options)
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    cli.add_training(options, n_epochs=100)
    add("-dir", "--save-dir", required=True, help="folder to write to; with several layers, a folder in it for each")
    add(
        "-sf",
        "--save-frequency",
        type=cli.whole_number(0),
        default=0,
        help="save every so many epochs of pre-training, and the last one; 0: the last one only",
    )
    cli.add_resume(options, overwrite=True)
    add("--resume-from", help="checkpoint of a classifier to go on from; with -e 0 it is only fine-tuned")
    add("-ftidd", "--finetune-id-dataset", type=cli.dataset, required=True, help="ID dataset, as -d")
    add("-ftiddata", "--finetune-id-dataset-root", default="./data/pytorch", help="folder of the ID dataset")
    add("-ftoodd", "--finetune-ood-dataset", type=cli.dataset, required=True, help="auxiliary OOD dataset, as -d")
    add("-ftooddata", "--finetune-ood-dataset-root", default="./data/pytorch", help="folder of the OOD dataset")
    add("-fe", "--finetune-epochs", dest="n_finetune_epochs", type=cli.whole_number(0), default=20, help="epochs")
    add("--finetune-decay", choices=LR_STEPS, default="updates",
        help="what is counted to -fe // 2, where the learning rate drops to a tenth; published: updates")  # fmt: skip
    add("-m-in", "--mean-in-score", dest="m_in", type=cli.real_number(), default=-25.0,
        help="energy that ID is to stay below")  # fmt: skip
    add("-m-out", "--mean-out-score", dest="m_out", type=cli.real_number(), default=-7.0,
        help="energy that OOD is to stay above")  # fmt: skip
    add("-score", "--ood-score", dest="score", type=lambda text: "OE" if text.lower() == "oe" else text,
        choices=OOD_SCORES, default="energy",
        help="what is added to the cross-entropy: the energy hinge, or outlier exposure")  # fmt: skip
    add("-fdir", "--final-save-dir", default="./models/repr_cls_ood_detectors", help="folder of the detector store")
    return options


def train_detectors(args) -> None:
    from functools import partial
    from pathlib import Path

    from src.console import note
    from src.datasets import dataset_info, load_dataset
    from src.errors import UserError
    from src.ood import finetuning
    from src.ood.store import DetectorStore, new_name
    from src.results.run import Run
    from src.runtime import device_of
    from src.session import Session
    from src.training.recorded import train_network

    # The network, and a run for each of its layers.
    settings, device, store = cli.training_settings(args), device_of(args.gpu), DetectorStore(args.final_save_dir)
    store.entries()  # which may be damaged
    id_data = (args.finetune_id_dataset, args.finetune_id_dataset_root)
    ood_data = (args.finetune_ood_dataset, args.finetune_ood_dataset_root)
    spec = dataset_info(args.dataset, labelled=True).spec
    dataset_info(args.finetune_id_dataset, labelled=True)
    if id_data == ood_data:
        raise UserError(
            f"-ftidd and -ftoodd are both {args.finetune_id_dataset}: no detector tells it from itself; choose two sets"
        )
    source, name = cli.load_network(args, "source_model", spec, session=Session(), device=device)
    source, layers = cli.choose_layers(source, args.source_layer_name, args, image_shape=spec.shape)
    runs = {}
    for layer in layers:
        path = str(Path(args.save_dir, layer) if len(layers) > 1 else Path(args.save_dir))
        run = Run.in_folder(path, vars(args) | {"source_layer_name": layer, "save_dir": path})
        if not run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
            runs[layer] = run

    # The images, and the two phases of training.
    loading = cli.load_options(args, device)
    train_set = load_dataset(args.dataset, args.dataset_root, train=True, **loading)
    val_set = load_dataset(args.dataset, args.dataset_root, train=False, **loading)
    both = (load_dataset(*data, train=True, **loading) for data in (id_data, ood_data))
    mixed = finetuning.HalfAndHalf(*both, like=train_set, batch_size=args.batch_size)
    hinge = partial(finetuning.energy_penalty, m_in=args.m_in, m_out=args.m_out)
    penalty = {"energy": hinge, "OE": finetuning.outlier_exposure_penalty}[args.score]
    tuning = finetuning.finetuning_settings(settings, n_epochs=args.n_finetune_epochs, decay=args.finetune_decay)

    for layer, run in runs.items():
        note(f"detector for {layer}")
        classifier, shape = finetuning.fresh_classifier(
            args.model_type, source, layer, spec, seed=args.seed, resume_from=args.resume_from
        )
        run.claim(resume=args.resume)
        file = run.state.get("detector") or new_name()
        run.save(detector=file)
        task = finetuning.RepresentationClassification(source, layer, classifier)
        if "finetuning" not in run.state:
            train_network(run, task, train_set, val_set, settings, save_frequency=args.save_frequency)
        task.penalty = penalty
        scores = finetuning.finetune(run, task, mixed, val_set, tuning)
        entry = {
            "model_type": args.model_type,
            "source_model_type": args.source_model_type,
            "source_model_path": args.source_model_path,
            "source_layer": layer,
            "id_dataset": args.dataset,
            "orig_input_shape": spec.shape,
            "required_input_shape": shape,
            "training_loc": str(run.folder),
            "source_sha256": name.weights,
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
