"""Bad input: one line that says what was given, what is allowed and what to do; exit code 2; no
file is written.

One table of commands and of words that their lines have; each kind of refusal stands once. They run in one
folder, which holds what `place` puts there."""

import json
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from src.core.tensors import save_state
from src.results.checkpoints import load_state
from tests.commands import MODEL, error_line, run, save_network
from tests.conftest import few_images

ON = "-d digits -gpu -1"
TRAIN = f"exec_train.py small_cnn {ON} -dir m"
STITCH = f"exec_stitch.py f.pt f.pt {MODEL} {MODEL}"
DETECTOR = (
    f"exec_train_representation_classifier.py f.pt {MODEL} layer2.0 {ON} -b 512 -e 1 -fe 1 "
    "-m repr_cls_resnet18 -ftidd digits -ftoodd photo_patches -dir d"
)
EVALUATE = f"exec_eval_stitcher_ood.py results/dm {ON}"
SIMILARITY = "exec_compute_low_rank_sim_metrics.py"
COLLECT = "misc/collect_results.py"

REFUSALS = [
    # Training
    (TRAIN.replace("small_cnn", "resnet19"), ("unknown model 'resnet19'", "resnet18")),
    (TRAIN.replace("small_cnn", "nets.py"), ("'nets.py'", "function")),
    (TRAIN.replace("small_cnn", "vit_tiny_patch16_224"), "8×8"),
    (f"{TRAIN} -d cifar11", ("unknown dataset 'cifar11'", "cifar10")),
    (f"{TRAIN} -d photo_patches", "'photo_patches' has no labels"),
    (f"{TRAIN} -d imagenet -data empty", ("training_data", "validation_data", "image-net.org")),
    (f"{TRAIN} -e -1", ("-e/--epochs: '-1'", "integer from 0")),
    (f"{TRAIN} -sched cosine -rlre 3", ("(-sched)", "(-rlre)", "one of them")),
    (f"{TRAIN} -gpu 99", "-gpu 99: this machine has"),
    (f"{TRAIN} --resume --overwrite", ("--overwrite", "--resume")),
    (TRAIN.replace("-dir m", "-dir file/m"), "file is a file; give a folder"),
    (f"{TRAIN} --config lr.yaml", ("-lr/--learning-rate: '0'", "above 0")),
    (f"{TRAIN} -d mine.npz", ("'mine.npz' does not exist", "check the path")),
    (f"{TRAIN} -d twice.npz", ("classes has '3' twice", "its own name")),
    (f"{TRAIN} -d minus.npz", ("y_train has label -1", "integers from 0")),
    (f"{TRAIN} -d float.npz", ("expected uint8", ".round()")),
    (
        f"exec_train.py {ON} -dir m",
        ("required: model_type; write exec_train.py model_type [options]",),
    ),
    (f"{TRAIN} --learning-rat 1", ("--learning-rat", "did you mean --learning-rate?")),
    (
        f"exec_probe.py {ON} -l layer1.0 f.pt {MODEL}",
        ("model_path, model_type", "write exec_probe.py model_path"),
    ),
    # Checkpoints
    (f"exec_eval.py list.csv {MODEL} {ON}", "list.csv is no checkpoint of torch"),
    (f"exec_eval.py word.pt {MODEL} {ON}", "word.pt is no checkpoint of torch"),
    (f"exec_eval.py x.pt {MODEL} {ON}", ("x.pt", "No such file")),
    (
        f"exec_eval.py f.pt small_cnn {ON}",
        ("small_cnn with 10 classes", "(-d is digits)"),
    ),
    (
        f"exec_eval.py own/f.pt small_cnn {ON}",
        ("own/f.pt", f"config.txt {MODEL}", "does not fit"),
    ),
    (
        f"exec_eval.py own/f.pt {MODEL} -gpu -1",
        ("own/f.pt", "digits (1×8×8, 10 classes)", "cifar10 (3×32×32, 10 classes)", "conv1.weight"),
    ),
    # Checkpoints and types in another order
    *(
        (
            f"{script} f.pt {MODEL} {end} {MODEL} {options} {ON}",
            (f"argument {option}: {end!r} is a checkpoint", "both checkpoints"),
        )
        for script, options, option, end in (
            ("exec_stitch.py", "layer1.0 layer2.0 rc2c_pre", "front_model_type", "f.pt"),
            ("exec_stitch.py", "layer1.0 layer2.0 rc2c_pre", "front_model_type", "-"),
            (SIMILARITY, "layer1.0 layer2.0", "model1_type", "f.pt"),
            (SIMILARITY, "layer1.0 layer2.0", "model1_type", "DEFAULT"),
        )
    ),
    (f"exec_eval.py {MODEL} f.pt {ON}", "argument model_type: 'f.pt' is"),
    # Mistyped options and words in the wrong place
    (f"{TRAIN} -dir ''", "the name of a folder is missing"),
    (TRAIN.replace("small_cnn", "Small_CNN"), "did you mean small_cnn?"),
    (f"{TRAIN.replace('-dir m', '-dir broken')} --resume", "broken/resume.pt is damaged"),
    (f"{TRAIN} -epoch-size 99999", ("-epoch-size 99999 is more than the 64 training inputs",)),
    (f"{TRAIN} -dir {'x' * 300}", ("File name too long: xxx", "choose another name")),
    (f"{TRAIN} -dri m", ("unknown option -dri", "did you mean -dir?")),
    (
        f"misc/all_pairs.py list.csv {ON} -dir all layer2.0",
        ("layer2.0; write all_pairs.py networks layers",),
    ),
    (f"exec_eval.py zip.pt {MODEL} {ON}", "zip.pt is no checkpoint of torch, is damaged"),
    (f"{TRAIN} -d text.npz", "text.npz: it is no .npz archive"),
    (f"{TRAIN} -d mean.npz", "it has no std"),
    # Two networks
    (
        f"misc/compare.py f.pt copy.pt {MODEL} {ON} -o new",
        f"f.pt and copy.pt, of type {MODEL}, have the same weights",
    ),
    (
        f"misc/compare.py - - {MODEL} {ON} -o new",
        (f"- and -, of type {MODEL}, have the same weights", "another type"),
    ),
    (
        f"misc/compare.py f.pt another.pt {MODEL} {ON} -o new",
        ("both networks are close to chance", "f.pt is correct on"),
    ),
    # Stitching
    (
        f"misc/compare.py f.pt - {MODEL} {ON} -o ../new",
        ("-o/--output: '../new' has ..", "absolute path"),
    ),
    (f"misc/all_pairs.py list.csv layer2.0 {ON} -dir ../all", "'../all' is not below results/"),
    (
        f"{STITCH} layer9.0 layer2.0 rc2c_pre {ON}",
        (
            "unknown layer 'layer9.0'",
            "layer1.0, layer1.1, ",
            "misc/list_layers.py MODEL",
        ),
    ),
    (f"{STITCH} layer1.0 fc rc2c_pre {ON}", ("64×8×8", " to 10")),
    (
        f"{STITCH} layer1.0 layer2.0 t2t {ON}",
        ("t2t", "grid of tokens"),
    ),
    (
        f"{STITCH} layer1.0 layer2.0 c2c {ON}",
        ("c2c", "64×8×8 and 64×4×4", "rc2c_pre"),
    ),
    (
        f"{STITCH} layer1.0 layer2.0 rc2c_pre {ON} -e 0 -i pinv --objective hint",
        ("--objective hint", "-e 0"),
    ),
    (
        f"{STITCH} layer1.0 output rc2c_pre {ON}",
        ("end layer output", "nothing follows"),
    ),
    # Detectors, their evaluation, and probes
    (f"{DETECTOR} -b 1", ("-b 1", "at least 2")),
    (f"{DETECTOR} -m-in -7 -m-out -25", ("-m-in -7", "-m-out -25")),
    (
        f"{DETECTOR} -ftoodd digits",
        ("-ftidd and -ftoodd", "both digits"),
    ),
    (
        f"{DETECTOR} -m repr_cls_vit_tiny",
        ("(tokens, width)", "(64, 4, 4)"),
    ),
    (f"{DETECTOR} -fdir broken", "broken/meta.json: "),
    (f"{DETECTOR} -fdir file", "file is a file; give a folder"),
    (f"{EVALUATE} -detectors nowhere", ("nowhere", "no meta.json")),
    (
        f"{EVALUATE} --detector energy,nothing",
        ("unknown score 'nothing'", "energy, mahalanobis, none"),
    ),
    (EVALUATE.replace("dm", "mixed"), "differ in end_model_path: "),
    (EVALUATE.replace("/dm", ""), ("results holds no finished stitching run", "results/dm, ")),
    (f"{EVALUATE} -ed file", "file is a file; give a folder"),
    # Results
    (
        f"{COLLECT} dm -o a.jpg",
        ("-o/--output: 'a.jpg'", "ending in .csv"),
    ),
    (
        f"misc/all_pairs.py list.csv layer2.0 {ON} -dir all --ends a c d",
        ("--ends: list.csv has no c, d;", "a, b"),
    ),
    (
        f"misc/all_pairs.py surplus.csv layer2.0 {ON} -dir all",
        ("surplus.csv, line 3", "layer3.1", "quotes"),
    ),
    (
        "misc/verdict.py results/dm --networks surplus.csv",
        ("surplus.csv, line 3", "layer3.1", "quotes"),
    ),
    (
        f"misc/all_pairs.py tabs.csv {ON} -dir all",
        ("tabs.csv has tabs between its columns", "commas"),
    ),
    (f"misc/all_pairs.py columns.csv {ON} -dir all", "columns.csv has two columns 'group'"),
    (
        "misc/score_measures.py nowhere.csv",
        ("nowhere.csv: No such file", "CSV in UTF-8"),
    ),
    (
        "misc/score_measures.py latin.csv",
        ("latin.csv: it is not UTF-8 text", "CSV in UTF-8"),
    ),
    (f"{COLLECT} empty", ("no finished", "run")),
    ("misc/verdict.py empty --page", ("no finished", "run")),
    ("misc/verdict.py results/dm --page page.pdf", ("--page", "'page.pdf'", ".html")),
    ("misc/demo.py own", "own"),
    (
        "misc/verdict.py results/dm --tolerance 500",
        ("'500'", "at least 0 and at most 100"),
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the commands name; they run there."""
    folder = tmp_path_factory.mktemp("refusals")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with few_images(64, n_test=64):
            place(folder)
            yield folder


def place(folder) -> None:
    save_network(folder / "f.pt", MODEL, n_channels=1)
    (folder / "copy.pt").write_bytes((folder / "f.pt").read_bytes())
    (folder / "file").touch()
    (folder / "lr.yaml").write_text("learning_rate: 0")
    (folder / "list.csv").write_text(f"name,path,type\na,f.pt,{MODEL}\nb,own/f.pt,{MODEL}\n")
    lines = ("name,path,type,layers", f"a,f.pt,{MODEL},,,", f"b,own/f.pt,{MODEL},layer3.0,layer3.1")
    (folder / "surplus.csv").write_text("\n".join(lines))
    (folder / "tabs.csv").write_text(f"name\tpath\ttype\na\tf.pt\t{MODEL}\n")
    (folder / "columns.csv").write_text(f"name,path,type,group,group\na,f.pt,{MODEL},x,y\n")
    (folder / "word.pt").write_text("in words")
    images = np.zeros((2, 8, 8), "uint8")
    arrays = {"x_train": images, "x_test": images, "y_train": [0, 1], "y_test": [0, 1]}
    (folder / "zip.pt").write_bytes(b"PK\x03\x04 and no more")
    (folder / "text.npz").write_text("in words")
    np.savez(folder / "mean.npz", **arrays, mean=[0.5])
    np.savez(folder / "twice.npz", **arrays, classes=["3", "4", "3"])
    np.savez(folder / "minus.npz", **arrays | {"y_train": [-1, 0]})
    np.savez(folder / "float.npz", **arrays | {"x_train": images / 1.0})
    (folder / "latin.csv").write_text("name,path,type\ngrün,f.pt,resnet18\n", encoding="latin-1")
    for name in ("broken", "empty", "own"):
        (folder / name).mkdir()
    (folder / "broken" / "meta.json").write_text("{")
    (folder / "broken" / "resume.pt").write_text("in words")
    state = load_state(folder / "f.pt")
    save_state(folder / "own/f.pt", state | {"fc.bias": state["fc.bias"] + 2})
    (folder / "own" / "config.txt").write_text(
        json.dumps({"model_type": MODEL, "dataset": "digits"})
    )
    run(*shlex.split(f"{STITCH} layer3.0,layer4.1 layer2.0 rc2c_pre {ON} -e 0 -i pinv -dir dm"))
    run(*shlex.split(f"{STITCH} layer3.1 layer4.0 rc2c_pre {ON} -e 0 -i pinv -dir other"))
    shutil.copytree(folder / "results/dm", folder / "results/mixed")
    save_state(folder / "another.pt", state | {"fc.bias": state["fc.bias"] + 1})
    mixed = shlex.split(STITCH.replace("f.pt f.pt", "f.pt another.pt"))
    run(*mixed, *shlex.split(f"layer3.1 layer4.0 rc2c_pre {ON} -e 0 -i pinv -dir mixed"))


def files_in(folder: Path) -> dict[Path, int]:
    """Everything in a folder, with the times at which files were written."""
    times = {}
    for path in folder.rglob("*"):
        times[path] = path.stat().st_mtime_ns if path.is_file() else 0
    return times


@pytest.mark.parametrize(("command", "words"), REFUSALS)
def test_one_line_says_what_to_do(command, words, folder):
    before = files_in(folder)
    line = error_line(*shlex.split(command))
    for word in [words] if isinstance(words, str) else words:
        assert word in line
    assert files_in(folder) == before


def test_missing_data_says_what_to_put_where(tmp_path, no_network):
    """With a deadline: no network must not mean a long wait."""
    save_network(tmp_path / "small.pt", "small_cnn")
    start = time.monotonic()
    line = error_line(
        "exec_eval.py", "small.pt", "small_cnn", "-data", "nowhere", "-gpu", "-1", cwd=tmp_path
    )
    assert (
        time.monotonic() - start < 120
    )  # seconds on a quiet machine; torchvision without this waits for minutes
    assert "torchvision.datasets.CIFAR10(" in line
