"""Messages fit whoever reads them: calls from Python are answered with arguments, not with options of scripts."""

import re

import pytest
import torch

from src.datasets import load_dataset
from src.errors import UserError
from src.models import build_model
from src.ood import make_detector
from src.similarity import compare
from src.stitching import build_layers, direct_matching, matching_batches

OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def layers_of(front: str, end: str, kind: str, **options):
    networks = {name: build_model(name, n_channels=1, image_shape=(1, 8, 8)).eval() for name in {front, end}}
    blocks = [networks[name].block_names[i] for name, i in ((front, 0), (end, -2))]
    sides = networks[front], networks[end], blocks[:1], blocks[1:]
    return build_layers(*sides, kind, image_shape=(1, 8, 8), seed=0, **options)


CALLS = {
    "CKA of 2 layers is biased upwards: .* metrics=": lambda x: compare(x, x[:, :, :2, :2]),
    "pwcca, .* give more of them": lambda x: compare(x, x[:, :, :2, :2]),
    "do not correspond; alignment=": lambda x: compare(x, x[:, :, :2, :2], alignment="positions"),
    "unknown measure 'ccka'": lambda x: compare(x, x, ["ccka"]),
    "unknown model 'resnet19'": lambda x: build_model("resnet19"),
    "unknown model 'tv_resnet19'": lambda x: build_model("tv_resnet19"),
    "unknown dataset 'cifar11'": lambda x: load_dataset("cifar11", "", train=True),
    "init eye needs equal widths": lambda x: layers_of("small_cnn", "small_cnn", "rc2c_pre", init="eye"),
    "use c2t_cls_token pool or learn": lambda x: layers_of("small_cnn", "vit_tiny_patch4_32", "c2t"),
    "ridge needs at least two samples": lambda x: direct_matching(x[:1], x[:1], form="ridge"),
    "only 1437 training images": lambda x: matching_batches(load_dataset("digits", "", train=True), 2000, 9, seed=0),
    "unknown OOD score": lambda x: make_detector("nothing"),
    "needs a trained detector": lambda x: make_detector("energy"),
}


@pytest.mark.parametrize("said", CALLS)
def test_calls_from_python_are_answered_with_arguments(said, capsys):
    torch.manual_seed(0)
    try:
        CALLS[said](torch.rand(9, 8, 4, 4))
    except (UserError, ValueError) as error:
        print(error)
    printed = "".join(capsys.readouterr())
    assert re.search(said, printed)
    assert not OPTION.findall(printed.replace("exec_train.py --help lists", ""))
