"""One call in Python: it equals the scripts, whatever the images come as; its rows, and its errors."""

import copy
import itertools
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from src.core.choices.stitching import FORMS, Method
from src.core.errors import UserError
from src.datasets import load_dataset
from src.datasets.iterated import IteratedInputs
from src.judge import judge
from src.models import Network, build_model
from src.results.tables import COLUMNS
from src.verdict import Limits
from tests.commands import read_csv, run, says, stitch_rows
from tests.conftest import few_images
from tests.tiny_datasets import collect
from tests.tiny_networks import Computed

ON_DIGITS = ["-d", "digits", "-gpu", "-1"]
LAYERS = "pool2,pool3"
MINE = """
import torch

def squares(source, target, cross):
    weight = torch.linalg.lstsq(source.scatter, cross, driver="gelsd").solution.T
    return weight, target.mean - weight @ source.mean
"""
N_TRAIN = 600
N_TEST = 240  # images


@pytest.fixture(scope="module", autouse=True)
def few():
    with few_images(N_TRAIN, n_test=N_TEST):
        yield


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The checkpoints of two `small_cnn` that the script trained on the digits, and both modules."""
    folder = tmp_path_factory.mktemp("networks")
    modules = []
    for seed in "01":
        options = [*ON_DIGITS, "-e", "6", "-b", "32", "-lr", "0.003", "-s", seed]
        run("exec_train.py", "small_cnn", *options, "-dir", folder / seed)
        network = build_model("small_cnn", n_classes=10, n_channels=1)
        network.load_state_dict(torch.load(folder / seed / "model_6.pt"))
        modules.append(network.module.eval())
    return [folder / seed / "model_6.pt" for seed in "01"], modules


@pytest.fixture(scope="module")
def digits():
    """The digits as lists of batches: training and test images."""
    return [list(load_dataset("digits", "", train=train).batches(256)) for train in (True, False)]


@pytest.fixture(scope="module")
def image_sets():
    """The digits as the suite loads them: training and test images."""
    return [load_dataset("digits", "", train=train) for train in (True, False)]


@pytest.fixture(scope="module")
def judged(networks, digits):
    """The two networks with the target's covariance and by least squares."""
    return judge(*networks[1], *digits, layers=LAYERS, forms=["covariance", "pinv"])


def pair_of(row) -> tuple[str, str]:
    return row.front_layer, row.end_layer


def assert_same(row, line: dict[str, str], names, tolerance: float) -> None:
    """Numbers of a row are those of the line of a table."""
    for name in names:
        expected = pytest.approx(float(line[name] or "nan"), abs=tolerance, nan_ok=True)
        assert getattr(row, name) == expected, name


def test_judge_all_pairs_and_compare_give_the_same_numbers(networks, in_tmp_path, image_sets):
    """By their defaults, over all forms and a training run. Accuracies up to one image, whose logits may be
    nearly equal."""
    checkpoints, modules = networks
    lines = [f"{name},{path},small_cnn" for name, path in zip("ab", checkpoints, strict=True)]
    (in_tmp_path / "list.csv").write_text("\n".join(["name,path,type", *lines]) + "\n")
    forms = [*FORMS, "task:2"]
    of_two = [*checkpoints, "small_cnn", *ON_DIGITS, "--layers", LAYERS, "-o", "both"]
    run("misc/compare.py", *of_two)
    of_list = ["list.csv", LAYERS, *ON_DIGITS, "--ends", "b", "--methods", *forms]
    run("misc/all_pairs.py", *of_list, "-dir", "all")
    rows = judge(*modules, *image_sets, layers=LAYERS, forms=forms)
    assert judge(*modules, *image_sets, layers=LAYERS).forms == ("pinv", "covariance")

    verdicts = {key_of(line): line for line in read_csv("all_verdict.csv")}
    stitched = {}
    for form in rows.forms:
        for line in stitch_rows(f"results/all/a to b/{Method.of(form).title}"):
            stitched[form, line["front_layer"], line["end_layer"]] = line
    assert len(verdicts) == len(stitched) == len(rows)
    shares = [
        f"{name}{end}" for name in ("accuracy", "accuracy_drop") for end in ("", "_low", "_high")
    ]
    skills = ("correlation", "baseline", "skill", "skill_low", "skill_high")
    skills += tuple(name.replace("skill", "skill_at_end") for name in skills[2:])
    measured = ("r2_fit", "r2_test", "front_accuracy", "end_accuracy")
    for row in rows:
        line = verdicts[(Method.of(row.method).words, *pair_of(row))]
        assert (row.verdict, row.reason) == (line["verdict"], line["reason"])
        assert_same(row, line, shares, 1.5 / N_TEST)
        assert_same(row, line, skills, 1e-3)
        assert_same(row, stitched[(row.method, *pair_of(row))], measured, 1e-5)

    first, _ = read_csv("results/both/networks.csv")
    both = [line for line in read_csv("both.csv") if line["front_network"] == first["name"]]
    assert len(both) == 2 * 4  # forms, pairs of layers
    for line in both:
        for name in ("accuracy", "skill", "baseline", "correlation_at_end"):
            assert line[name] == verdicts[key_of(line)][name]


def key_of(line: dict[str, str]) -> tuple[str, str, str]:
    return line["method"], line["front_layer"], line["end_layer"]


def test_training_equals_the_scripts(networks, in_tmp_path, image_sets):
    """By the same seed and options; whatever is matched and trained beside it."""
    checkpoints, modules = networks
    options = [*ON_DIGITS, "-e", "3", "-lr", "0.01", "-sched", "cosine", "-b", "128", "-s", "3"]
    sides = [*checkpoints, "small_cnn", "small_cnn", LAYERS, "pool3", "auto"]
    run(
        "exec_stitch.py",
        *sides,
        *options,
        "--objective",
        "soft",
        "--mod-only-stitch",
        "-dir",
        "soft",
    )
    run("exec_eval_stitcher_ood.py", "results/soft", *ON_DIGITS)
    run("misc/verdict.py", "results/soft", "-o", "verdict.csv")
    training = {"learning_rate": 0.01, "scheduler": "cosine", "batch_size": 128, "seed": 3}
    forms = ["soft:3", "covariance", "task:1"]
    rows = judge(*modules, *image_sets, layers=(LAYERS, "pool3"), forms=forms, **training)
    trained, unfinished = ([row for row in rows if row.method == form] for form in forms[::2])
    for row, line in zip(trained, read_csv("verdict.csv"), strict=True):
        assert (row.front_layer, row.end_layer) == (line["front_layer"], line["end_layer"])
        # Logits may be nearly equal
        assert_same(row, line, ("accuracy", "skill", "skill_at_end"), 3.5 / N_TEST)
        assert (row.verdict, row.reason) == (line["verdict"], line["reason"])
        assert np.isnan(row.r2_fit) and np.isfinite(row.r2_test)
    assert all(row.verdict != "similar" and row.reason for row in unfinished)


def test_training_takes_any_batches_and_leaves_the_networks_as_they_were(networks, digits):
    """An epoch is a pass over a shuffled loader, or over a list of arrays."""
    modules = networks[1]
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    for train in (shuffled(digits[0]), arrays_of(digits[0])):
        rows = judge(*modules, train, digits[1], layers="pool3", forms="task:2", learning_rate=0.01)
        assert rows[0].accuracy > 0.5
    for module, weights in zip(modules, before, strict=True):
        torch.testing.assert_close(module.state_dict(), weights, rtol=0, atol=0)
        assert not module.training
        assert all(each.requires_grad and each.grad is None for each in module.parameters())


def arrays_of(batches):
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def test_a_loader_arrays_and_an_image_set_are_the_same_images(networks, digits):
    """In batches of any size; the training images, if all are matched, in any order and without labels.

    A baseline is measured on some of them, which hang on the order."""
    sources = [
        (shuffled(digits[0]), arrays_of(digits[1])),
        ([(images, None) for images, _ in digits[0]], [*digits[1]]),
        [load_dataset("digits", "", train=is_train) for is_train in (True, False)],
    ]
    (expected,) = judge(
        *networks[1], *digits, layers="pool3", forms="pinv", n_fitting_samples=N_TRAIN
    )
    for images in sources:
        (row,) = judge(
            *networks[1], *images, layers="pool3", forms="pinv", n_fitting_samples=N_TRAIN
        )
        assert row.accuracy == pytest.approx(expected.accuracy, abs=1.5 / N_TEST)
        assert row.correlation == pytest.approx(expected.correlation, abs=1e-5)
        assert row.baseline == pytest.approx(expected.baseline, abs=0.03)


def test_probabilities_and_images_that_are_given_twice_are_warned_of(networks, digits, capsys):
    front, end = networks[1]
    few = [batches[:1] for batches in digits]
    soft = nn.Sequential(OrderedDict(net=end, softmax=nn.Softmax(1))).eval()
    cases = (end, few, "pool3", False), (soft, [few[1]] * 2, ("pool3", "net.pool3"), True)
    for network, images, layers, is_warned in cases:
        judge(front, network, *images, layers=layers, forms="pinv")
        said = capsys.readouterr().err
        assert ("sum to 1" in said) == ("same inputs" in said) == is_warned


def test_layers_by_pattern_pair_and_default(networks, digits):
    _, (front, end) = networks
    few = [[(images[:60], labels[:60]) for images, labels in batches[:1]] for batches in digits]
    blocks = Network(front, image_shape=(1, 8, 8)).block_names
    cases = [
        ({"layers": ("pool2", ["pool3", "pool4"])}, ["pool2"], ["pool3", "pool4"]),
        ({"layers": "pool[34]"}, ["pool3", "pool4"], ["pool3", "pool4"]),
        ({}, blocks, blocks),
    ]
    for options, fronts, ends in cases:
        rows = judge(front, end, *few, forms="pinv", **options)
        assert [pair_of(row) for row in rows] == list(itertools.product(fronts, ends))


def test_views_are_taken_and_left_as_they_were(networks, digits):
    """A network beside itself is similar at each layer."""
    view = Network(networks[1][0])
    limits = Limits(pairwise=True)
    rows = judge(view, view, *digits, layers="pool2", forms="covariance", limits=limits)
    (row,) = rows
    assert row.verdict == "similar" and row.accuracy == pytest.approx(row.end_accuracy, abs=0.003)
    assert row.skill > 0.99 and row.skill_at_end > 0.99
    assert row.r2_test == pytest.approx(1, abs=1e-6)
    assert view.n_classes is None and view.image_shape is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_image_set_takes_the_type_of_the_networks(networks, digits, dtype, image_sets):
    cast = [copy.deepcopy(module).to(dtype) for module in networks[1]]
    forms = ["pinv", "task:1"]
    of_sets, of_lists = (
        judge(*cast, *each, layers="pool4", forms=forms) for each in (image_sets, digits)
    )
    assert of_sets[0].accuracy == of_lists[0].accuracy
    assert of_sets[0].r2_test == pytest.approx(of_lists[0].r2_test, abs=1e-6)
    assert of_sets[1].accuracy > 0.1


def test_an_encoder_is_a_front(networks, digits):
    layers = {"body": nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()), "flat": nn.Flatten()}
    encoder = nn.Sequential(OrderedDict(layers)).eval()
    row, _ = judge(encoder, networks[1][1], *digits, layers=("body", "pool3"))
    assert np.isnan(row.front_accuracy) and 0 < row.accuracy < row.end_accuracy


def test_rows_print_as_a_table_and_give_matrices_and_maps(judged):
    _, *lines = str(judged).splitlines()
    for row, line in zip(judged, lines[: len(judged)], strict=True):
        assert all(text in line for text in (row.method, row.verdict, f"{row.accuracy:.4f}"))
    assert lines[-1].startswith(f"{len(judged)} judged stitches: ")
    for form in judged.forms:
        matrix = judged.matrix("skill", form=form)
        assert [*matrix.index] == [*matrix.columns] == LAYERS.split(",")
        assert matrix.to_numpy().ravel().tolist() == [
            row.skill for row in judged if row.method == form
        ]
    mistakes = (
        ("form", "accuracy", None),
        ("form", "accuracy", "pin"),
        ("acuracy", "acuracy", "pinv"),
    )
    for said, name, form in mistakes:
        with pytest.raises(UserError, match=said):
            judged.matrix(name, form=form)
    assert len(judged.figure().axes) == 2  # a map of each form
    for one in (judged.forms[:1], judged.forms[0]):
        assert len(judged.figure(forms=one).axes) == 1


def test_rows_are_written_as_a_table(judged, in_tmp_path):
    """The frame, with every digit; a value that is not defined is empty. They can be copied."""
    judged.to_csv("rows.csv")
    records = read_csv("rows.csv")
    assert [*records[0]] == [*judged.frame] and [*judged.frame][: len(COLUMNS)] == COLUMNS
    assert (
        set(judged.frame.front_network) == {judged.names[0]}
        and judged.frame.method[0] == judged[0].method
    )
    assert judged.frame.front_relative_depth.between(0, 1).all()
    for row, record, as_dict in zip(judged, records, judged.records(), strict=True):
        assert [*as_dict] == [*judged.frame]
        for name in ("accuracy", "skill_low", "baseline_at_end", "r2_test"):
            assert float(record[name]) == as_dict[name] == getattr(row, name)
    copied = pickle.loads(pickle.dumps(judged))
    assert copied.frame.equals(judged.frame) and copied.record.limits == judged.record.limits
    copied.frame["front_accuracy"] = float("nan")
    copied.to_csv("copied.csv")
    assert {record["front_accuracy"] for record in read_csv("copied.csv")} == {""}


def test_saved_rows_are_runs_that_the_scripts_read(networks, digits, in_tmp_path):
    """With their verdicts; also of a training run."""
    forms = ["covariance", "task:2"]
    rows = judge(*networks[1], *digits, layers=LAYERS, forms=forms, names=("seed 0", "seed 1"))
    rows.save("results/mine", dataset="digits")
    run("misc/verdict.py", "results/mine", "-o", "mine.csv", "--page")
    run("misc/collect_results.py", "results/mine", "-o", "all.csv")
    lines = {key_of(line): line for line in read_csv("mine.csv")}
    assert len(lines) == len(rows)
    for row in rows:
        line = lines[(Method.of(row.method).words, *pair_of(row))]
        assert (row.verdict, row.reason) == (line["verdict"], line["reason"])
        names = ("accuracy", "accuracy_drop_low", "skill", "skill_at_end_high", "baseline")
        assert_same(row, line, names, 1e-12)
        assert (line["front_network"], line["end_network"]) == rows.names


def half_way(source, target, cross):
    """The mean of the target, and half of the map between channels of one place."""
    weight = 0.5 * torch.eye(len(target.mean), len(source.mean), dtype=cross.dtype)
    return weight, target.mean - weight @ source.mean


def test_a_closed_form_of_ones_own(networks, digits, in_tmp_path):
    """A function, or the name of one in a file, with the numbers of the suite's own."""
    (in_tmp_path / "mine.py").write_text(MINE)
    rows = judge(*networks[1], *digits, layers=LAYERS, forms=["pinv", "mine.py:squares", half_way])
    assert rows.forms == ("pinv", "mine.py:squares", "half_way")
    by_form = {form: [row for row in rows if row.method == form] for form in rows.forms}
    for ours, own, half in zip(*by_form.values(), strict=True):
        assert own.r2_fit == pytest.approx(ours.r2_fit, abs=1e-3)
        assert own.accuracy == pytest.approx(ours.accuracy, abs=3.5 / N_TEST)
        assert half.r2_fit < ours.r2_fit
    rows.save("results/own")
    run("misc/verdict.py", "results/own", "-o", "own.csv")
    methods = {line["method"] for line in read_csv("own.csv")}
    assert methods == {"direct matching", "squares matching", "half_way matching"}


def transposed(source, target, cross):
    weight = torch.linalg.lstsq(source.scatter, cross, driver="gelsd").solution
    return weight, target.mean - weight @ source.mean


def test_a_map_that_is_worse_than_the_mean_is_warned_of(networks, digits, capsys):
    """Such as a transposed weight between equal widths."""
    front, _ = networks[1]
    (row,) = judge(front, front, *digits, layers="pool3", forms=transposed)
    assert "R²" not in capsys.readouterr().err and row.r2_fit == pytest.approx(1)
    (row,) = judge(*networks[1], *digits, layers="pool3", forms=transposed)
    assert row.r2_fit < 0 and "transposed: R² is below 0" in capsys.readouterr().err


@pytest.mark.parametrize("method", [{"forms": "covariance"}, {"forms": "task:1"}])
def test_a_front_that_shows_the_same_for_every_input_is_warned_of(networks, digits, capsys, method):
    front = copy.deepcopy(networks[1][0])
    for name, values in front.named_parameters():
        if name.startswith("conv1"):
            nn.init.zeros_(values)
    judge(front, networks[1][1], *digits, layers=("pool1", "pool3"), **method)
    text = capsys.readouterr().err
    assert says(text, "activations of pool1", "constant over the test inputs")
    assert text.count("constant") == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, where it imports its compiler
def test_parallel_and_compiled_networks_are_judged_with_their_own_names_of_layers(networks, digits):
    wrapped = [nn.DataParallel(networks[1][0]), torch.compile(networks[1][1])]
    assert wrapped[0].training
    (row,) = judge(*wrapped, *digits, layers="pool3", forms="pinv")
    (expected,) = judge(*networks[1], *digits, layers="pool3", forms="pinv")
    assert row.accuracy == expected.accuracy and row.front_layer == "pool3"


def test_a_single_test_input_judges_nothing(networks, digits):
    images, labels = digits[1][0]
    (row,) = judge(
        *networks[1], digits[0], [(images[:1], labels[:1])], layers="pool3", forms="pinv"
    )
    assert row.verdict == "inconclusive"


def test_an_iterable_gives_any_images_in_any_order():
    """Each image shows its own number."""
    images = torch.arange(23.0)[:, None, None, None].expand(-1, 1, 2, 2)
    batches = [(part, part[:, 0, 0, 0].long()) for part in images.split(5)]
    iterated = IteratedInputs(batches, name="test", like=torch.empty(0))
    for chosen in (torch.arange(23), torch.tensor([9, 9, 0, 22, 4])):
        for size in (1, 3, 50):
            given = list(iterated.batches(size, indices=chosen))
            assert [len(part) for part, _ in given] == [len(part) for part in chosen.split(size)]
            pixels, labels = collect(given)
            assert torch.equal(labels, chosen) and torch.equal(pixels, images[chosen])
    shuffled = iterated.permutation(0)[:10]
    assert torch.equal(iterated.in_cheapest_order(shuffled), shuffled.sort().values)
    first = IteratedInputs(batches, name="train", like=torch.empty(0), at_most=7)
    assert torch.equal(collect(first.batches(4))[0], images[:7])


class Flipping(list):
    """Batches whose images are flipped at a second pass."""

    n_passes = 0

    def __iter__(self):
        self.n_passes += 1
        for images, labels in list.__iter__(self):
            yield images.flip(-1) if self.n_passes > 1 else images, labels


def covariance(source, target, cross):
    return half_way(source, target, cross)


def words(source, target, cross):
    return "weight", "bias"


def turned(source, target, cross):
    return 1j * cross.T, target.mean


def on_pixels(n: int) -> nn.Module:
    """A network of images with so many pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(n, 10)).eval()


def changed(batches, change) -> list:
    return [change(images.clone(), labels) for images, labels in batches]


def without_a_number(images, labels):
    images[3, 0, 0, 0] = torch.nan
    return images, labels


def computed(net: nn.Module, change) -> nn.Module:
    return Computed(lambda self, images: change(self.net(images)), net=net).eval()


def without_gradients(net: nn.Module) -> nn.Module:
    return Computed(torch.no_grad()(lambda self, images: self.net(images)), net=net).eval()


def shuffled(batches) -> DataLoader:
    images = TensorDataset(*(torch.cat(part) for part in zip(*batches, strict=True)))
    return DataLoader(images, batch_size=90, shuffle=True)


def sorted_by_class(batches) -> DataLoader:
    """Many images, of which the first have few classes."""
    images = torch.cat([images for images, _ in batches])[:200].repeat(150, 1, 1, 1)
    classes = torch.arange(len(images)) * 10 // len(images)
    return DataLoader(TensorDataset(images, classes), batch_size=500)


MISTAKES = {  # what is wrong, and what is given in the place of what is right
    "front.eval": lambda given: {"front": copy.deepcopy(given["front"]).train()},
    "front is a str": lambda given: {"front": "front.pt"},
    "test .*only once": lambda given: {"test": iter(given["test"])},
    "train is empty": lambda given: {"train": []},
    "torch.float32.*torch.float64": lambda given: {"end": copy.deepcopy(given["end"]).double()},
    "train.*labels.*integers": lambda given: {
        "train": changed(given["train"], lambda x, y: (x, [*map(str, y.tolist())]))
    },
    "no pairs": lambda given: {"test": [images for images, _ in given["test"]]},
    "floating-point": lambda given: {"test": changed(given["test"], lambda x, y: ((255 * x).byte(), y))},
    "labels from 0 to 9": lambda given: {"test": changed(given["test"], lambda x, y: (x, y + 5))},
    "task:1: .*needs labels": lambda given: {
        "train": changed(given["train"], lambda x, y: (x, None)), "forms": "task:1"
    },
    "another order.*shuffling": lambda given: {"test": shuffled(given["test"])},
    "other inputs, at a second pass": lambda given: {"test": Flipping(given["test"])},
    "input 3 .*finite": lambda given: {"test": changed(given["test"], without_a_number)},
    "lack . of the 10 classes": lambda given: {"train": sorted_by_class(given["train"])},
    r"front cannot take inputs \(B, 1, 8, 8\)": lambda given: {"front": on_pixels(49), "layers": None},
    r"end cannot take inputs \(B, 1, 8, 8\)": lambda given: {"end": on_pixels(49), "layers": None},
    "1×8×8, and test of 1×7×7": lambda given: {"test": changed(given["test"], lambda x, y: (x[..., :7, :7], y))},
    "form": lambda given: {"forms": []},
    "int is not a closed-form solver": lambda given: {"forms": [3]},
    "covariance is the name of a closed-form solver": lambda given: {"forms": ["covariance", covariance]},
    "two methods have the name": lambda given: {"forms": [lambda *moments: None, lambda *moments: None]},
    "unknown method 'least'": lambda given: {"forms": "least"},
    "unknown method 'task:0'": lambda given: {"forms": "task:0"},
    "'learnin_rate'": lambda given: {"forms": "task:1", "learnin_rate": 1},
    "'n_epochs'": lambda given: {"forms": "task:1", "n_epochs": 2},
    "unknown scheduler": lambda given: {"scheduler": "cosinus"},
    "unknown layer": lambda given: {"layers": "pool9"},
    "nothing follows": lambda given: {"layers": "output"},
    "tuple of 3": lambda given: {"layers": ("a", "b", "c")},
    "limits is 5": lambda given: {"limits": 5},
    "n_fitting_samples is 0": lambda given: {"n_fitting_samples": 0},
    "names is 'AB'": lambda given: {"names": "AB"},
    "names has '-'": lambda given: {"names": ("a", "-")},
    "names is .*different": lambda given: {"names": ("a", "a")},
    "train has labels from 5 to 14": lambda given: {
        "train": changed(given["train"], lambda x, y: (x, y + 5)), "forms": "task:1"
    },
    "train has labels from -2 ": lambda given: {
        "train": changed(given["train"], lambda x, y: (x, y - 2)), "forms": "task:1"
    },
    "learning_rate is -1": lambda given: {"learning_rate": -1},
    "learning_rate is '0.01'": lambda given: {"learning_rate": "0.01"},
    "learning_rate is nan": lambda given: {"learning_rate": float("nan")},
    "weight_decay is -0.1": lambda given: {"weight_decay": -0.1},
    "grad_clip is 0": lambda given: {"grad_clip": 0},
    "batch_size is 0": lambda given: {"batch_size": 0},
    "batch_size is 1.5": lambda given: {"batch_size": 1.5},
    "n_fitting_samples is 100.0": lambda given: {"n_fitting_samples": 1e2},
    "seed is -1": lambda given: {"seed": -1},
    "reduce_lr_epochs is 3": lambda given: {"reduce_lr_epochs": 3},
    "both set the learning rate": lambda given: {"scheduler": "cosine", "reduce_lr_epochs": [1]},
    "inputs that are no numbers": lambda given: {"train": [("images", "labels")]},
    "test is empty": lambda given: {"test": [(x[:0], y[:0]) for x, y in given["test"]]},
    "train is a NoneType": lambda given: {"train": None},
    "test gives sparse tensors": lambda given: {"test": changed(given["test"], lambda x, y: (x.to_sparse(), y))},
    "standard deviation .*both": lambda given: {"test": changed(given["test"], lambda x, y: (255 * x, y))},
    "layers has {'pool3'": lambda given: {"layers": {"pool3": "pool4"}},
    "no gradient reaches .*no_grad": lambda given: {"end": without_gradients(given["end"]), "forms": "task:1",
                                                    "layers": ("pool3", "net.pool3")},
    "int is not a closed-form solver, which": lambda given: {"forms": 3},
    "dict is not a closed-form solver": lambda given: {"forms": dict},
    "words returns a tuple": lambda given: {"forms": words},
    "turned returns .*real": lambda given: {"forms": turned},
    "out of range": lambda given: {"limits": Limits(tolerance=5)},
    "is out of range": lambda given: {"limits": Limits(skill="0.3")},
    "a single number an input": lambda given: {"end": computed(given["end"], lambda x: x.argmax(1))},
    r"layers has \[3\]": lambda given: {"layers": [3]},
}  # fmt: skip


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_are_named(said, networks, digits):
    given = dict(zip(("front", "end", "train", "test"), (*networks[1], *digits), strict=True))
    with pytest.raises(UserError) as caught:
        judge(**given | {"layers": "pool3"} | MISTAKES[said](given))
    assert re.search(said, str(caught.value))


def test_empty_batches_and_labels_of_further_epochs(networks, digits):
    """Empty batches count for nothing; a label that is no class shows also behind the images that are kept."""
    pixels, labels = digits[1][0]
    empty = (pixels[:0], labels[:0])
    expected = judge(*networks[1], *digits, layers="pool3", forms="pinv").frame
    given = [[empty, batches[0], empty, *batches[1:], empty] for batches in digits]
    found = judge(*networks[1], *given, layers="pool3", forms="pinv").frame
    assert found.equals(expected)

    passes = itertools.count()

    class Later(list):
        def __iter__(self):
            n_before = next(passes)
            for images, of_batch in list.__iter__(self):
                yield images, of_batch + 5 * min(n_before, 1)

    with pytest.raises(UserError, match="train has labels from . to 1.*10 classes"):
        judge(*networks[1], Later(digits[0]), digits[1], layers="pool3", forms="task:1")


def test_the_first_training_images_may_lack_one_class_of_ten(networks, digits):
    images, labels = (torch.cat(part) for part in zip(*digits[0], strict=True))
    some = torch.nonzero(labels != 9)[:400, 0].repeat(5)
    train = [(images[some], labels[some])]
    rows = judge(
        *networks[1], train, digits[1], layers="pool4", forms="pinv", n_fitting_samples=len(some)
    )
    assert rows[0].accuracy > 0.3
