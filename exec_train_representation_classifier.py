#!/usr/bin/env python3
"""Train OOD detectors: classifiers of the activations of a network whose energy tells ID from OOD data."""

import sys

from src import cli
from src.models import MODEL_NAMES
from src.network_options import CHECKPOINT, NETWORKS, add_channels_last, checkpoint, choose, named, network

CLASSIFIERS = tuple(name for name in MODEL_NAMES if name.startswith("repr_cls_"))


def parser() -> cli.Parser:
    options = cli.Parser("Train an OOD detector for one layer of a network, for several, or for all of its blocks.")
    add = options.add_argument
    add("source_model_path", type=checkpoint, help=f"checkpoint of the network to detect for: {CHECKPOINT}")
    add("source_model_type", type=network, help=NETWORKS)
    add("source_layer_name", help="layer; several with commas between them, or all: one detector after the other")
    add("-m", "--model-type", choices=CLASSIFIERS, required=True, help="the detector")
    add_channels_last(options)
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    cli.add_training(options, n_epochs=100)
    add("-dir", "--save-dir", required=True, help="folder to write to; with several layers, a folder in it for each")
    add("-sf", "--save-frequency", type=cli.whole_number(0), default=0,
        help="save every so many epochs of pre-training, and the last one; 0: the last one only")  # fmt: skip
    cli.add_resume(options, overwrite=True)
    add("--resume-from", help="checkpoint of a classifier to go on from; with -e 0 it is only fine-tuned")
    cli.add_finetuning(options)
    return options


def train_detectors(args) -> None:
    from functools import partial
    from pathlib import Path

    from src.checkpoints import load_model
    from src.console import note
    from src.datasets import dataset_info, load_dataset
    from src.ood import finetuning
    from src.ood.detectors import DetectorStore, source_of
    from src.ood.losses import energy_penalty, outlier_exposure_penalty
    from src.runs import Run, train_network
    from src.runtime import device_of

    settings, device, store = cli.settings_of(args), device_of(args.gpu), DetectorStore(args.final_save_dir)
    store.check()
    id_data = (args.finetune_id_dataset, args.finetune_id_dataset_root)
    ood_data = (args.finetune_ood_dataset, args.finetune_ood_dataset_root)
    info, _ = (dataset_info(name, labelled=True) for name in (args.dataset, args.finetune_id_dataset))
    finetuning.refuse_equal_sets(id_data, ood_data)
    placing, image = cli.placing_of(args, device), {"n_classes": info.n_classes, "image_shape": info.image_shape}
    source = load_model(**named(args, "source_model"), **image, device=device)
    identity = source_of(**named(args, "source_model"))
    source, layers = choose(source, args.source_layer_name, args, image_shape=info.image_shape)
    runs = {}
    for layer in layers:
        path = str(Path(args.save_dir, layer) if len(layers) > 1 else Path(args.save_dir))
        runs[layer] = Run.in_folder(path, vars(args) | {"source_layer_name": layer, "save_dir": path})
    todo = [layer for layer in layers if runs[layer].left_to_do(resume=args.resume, overwrite=args.overwrite)]
    train_set, val_set = (load_dataset(args.dataset, args.dataset_root, train=t, **placing) for t in (True, False))
    both = (load_dataset(*data, train=True, **placing) for data in (id_data, ood_data))
    mixed = finetuning.HalfAndHalf(*both, like=train_set, batch_size=args.batch_size)
    hinge = partial(energy_penalty, m_in=args.m_in, m_out=args.m_out)
    penalty = {"energy": hinge, "OE": outlier_exposure_penalty}[args.score]
    tuning = finetuning.finetuning_settings(settings, n_epochs=args.n_finetune_epochs, decay=args.finetune_decay)

    for layer in todo:
        note(f"detector for {layer}")
        run = runs[layer]
        classifier, shape = finetuning.fresh_classifier(
            args.model_type, source, layer, **image, seed=args.seed, resume_from=args.resume_from
        )
        run.claim(resume=args.resume)
        name = run.state.get("detector") or store.new_name()
        run.save(detector=name)
        task = finetuning.RepresentationClassification(source, layer, classifier)
        if "finetuning" not in run.state:
            train_network(run, task, train_set, val_set, settings, save_frequency=args.save_frequency)
        task.penalty = penalty
        scores = finetuning.finetune(run, task, mixed, val_set, tuning)
        store.add(classifier.state_dict(), name=name, entry={
            "model_type": args.model_type, "source_model_type": args.source_model_type,
            "source_model_path": args.source_model_path, "source_layer": layer, "id_dataset": args.dataset,
            "orig_input_shape": image["image_shape"], "required_input_shape": shape, "training_loc": str(run.folder),
            "source_sha256": identity.sha256, "finetune_id_dataset": args.finetune_id_dataset,
            "finetune_ood_dataset": args.finetune_ood_dataset, "score": args.score, "scores": scores,
        })  # fmt: skip
        run.finish()
        note(f"added {store.folder / name}")


def main(argv=None) -> int:
    return cli.run(parser(), train_detectors, argv)


if __name__ == "__main__":
    sys.exit(main())
