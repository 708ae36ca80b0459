"""The planted front networks: what their activations are made of, and that they can be stitched and compared."""

import pytest
import torch

from misc.impostors import COPIES, KINDS, Impostor
from src.models import Network, build_model
from tests.commands import read_csv, run

LAYERS = ["pool2", "pool3"]


@pytest.fixture(scope="module")
def images():
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def make(kind: str, images) -> tuple[Network, dict]:
    """An impostor at two layers, and the activations of its donor."""
    torch.manual_seed(0)
    donor = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    own = {name: each.clone() for name, each in donor.activations(images, LAYERS).items()}
    batches = [(images[:30], torch.arange(30) % 10), (images[30:], torch.arange(30, 40) % 10)]
    impostor = Impostor(kind, donor, LAYERS, n_classes=10, batches=batches).eval()
    return Network(impostor, image_shape=(1, 8, 8), n_classes=10), own


@torch.no_grad()
def activations(kind, images):
    network, own = make(kind, images)
    return network.activations(images, LAYERS), own, network(images).argmax(1)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_have_the_donors_positions_and_depend_on_the_image_alone(kind, images):
    network, own = make(kind, images)
    found = network.activations(images, LAYERS)
    part = network.activations(images[7:9], LAYERS)
    for layer in LAYERS:
        assert found[layer].shape[2:] == own[layer].shape[2:]
        torch.testing.assert_close(part[layer], found[layer][7:9], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(network(images, until=layer), found[layer])
    assert list(network.block_names) == LAYERS


def test_copies_have_the_donors_channels_in_another_order_or_basis(images):
    for kind in COPIES:
        found, own, _ = activations(kind, images)
        for layer in LAYERS:
            rows, expected = (each[layer].movedim(1, -1).flatten(0, -2).double() for each in (found, own))
            assert not torch.allclose(rows, expected)
            torch.testing.assert_close(rows @ rows.T, expected @ expected.T, atol=1e-5, rtol=1e-5)
            if kind == "permuted":
                torch.testing.assert_close(rows.sort(1)[0], expected.sort(1)[0])


def test_class_means_are_those_of_the_training_images(images):
    found, own, classes = activations("class_means", images)
    for i in (0, 11, 39):
        expected = own["pool2"][torch.arange(40) % 10 == classes[i]].mean(0)
        torch.testing.assert_close(found["pool2"][i], expected, atol=1e-5, rtol=1e-4)


def test_labels_and_noise_tell_the_class_and_nothing_else(images):
    found, _, classes = activations("one_hot", images)
    assert found["pool2"].shape[1] == 10 and (found["pool2"].argmax(1) == classes[:, None, None]).all()
    noise = activations("clustered_noise", images)[0]["pool3"][:, :, 0, 0]
    same = classes[:, None] == classes
    distances = torch.cdist(noise, noise)[~torch.eye(40, dtype=torch.bool)]
    within = same[~torch.eye(40, dtype=torch.bool)]
    assert 0 < distances[within].min() and (within.all() or distances[within].max() < distances[~within].min())


def test_an_impostor_is_stitched_into_an_end_network_and_compared(in_tmp_path):
    data = ["-d", "digits", "-gpu", "-1"]
    run("exec_train.py", "small_cnn", *data, "-e", "1", "-b", "128", "-dir", "a")
    with open("plant.py", "w") as file:
        file.write(
            "from functools import partial\nfrom misc.impostors import planted\n"
            f"label = partial(planted, 'one_hot', '{in_tmp_path}/a/model_1.pt', network='small_cnn', layers={LAYERS}, "
            "dataset='digits', root='.')\n"
        )
    with open("list.csv", "w") as file:
        file.write("name,path,type\nend,a/model_1.pt,small_cnn\nlabel,DEFAULT,plant.py:label\nfresh,-,small_cnn\n")
    run("misc/all_pairs.py", "list.csv", ",".join(LAYERS), "rc2c_pre", *data, "--methods", "pinv", "task:1", "--ends",
        "end", "--alignment", "pool", "--own-types", "plant.py:label", "-dir", "all", "--no-figures")  # fmt: skip
    names = sorted(path.name for path in (in_tmp_path / "results" / "all" / "pinv").iterdir() if path.is_dir())
    assert names == ["fresh-end", "label-end"]
    assert {row["front_model_type"][-14:] for row in read_csv("results/all/task1/label-end/grid.csv")} == {
        "plant.py:label"
    }
    assert sorted(path.name for path in (in_tmp_path / "results" / "all" / "similarity").glob("*.csv")) == [
        "end-fresh.csv", "end-label.csv"]  # fmt: skip
