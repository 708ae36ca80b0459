"""The planted front networks: what their activations are made of, and that they can be stitched and
compared."""

from pathlib import Path

import pytest
import torch

from misc.impostors import (
    CONTROL,
    COPIES,
    KINDS,
    N_RANDOM,
    RANDOM,
    SWAPS,
    TAIL,
    Impostor,
    outputs_of,
    seen_by_tail,
)
from src.datasets.base import ImageSet
from src.models import Network, build_model
from src.skill.untrained import beside_class
from tests.commands import ON_DIGITS, names_in, run, save_network, stitch_rows
from tests.conftest import few_images

LAYERS = ["pool2", "pool3"]
N_TRAINING = 40  # the first of the images are training images


def draw_images() -> torch.Tensor:
    pixels = torch.randint(256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return pixels / 255


@pytest.fixture(scope="module")
def images():
    return draw_images()


@torch.no_grad()
def make_donor() -> Network:
    """A network that predicts three classes, each of several images."""
    torch.manual_seed(0)
    donor = build_model("small_cnn", n_classes=3, n_channels=1, image_shape=(1, 8, 8)).eval()
    donor.module.fc.bias -= donor(draw_images()).mean(0)
    return donor


def make_untrained() -> Network:
    torch.manual_seed(1)
    return build_model("small_cnn", n_classes=3, n_channels=1, image_shape=(1, 8, 8)).eval()


def training_set(images) -> ImageSet:
    pixels = (images[:N_TRAINING] * 255).round().to(torch.uint8)
    return ImageSet(pixels, torch.arange(N_TRAINING) % 3, n_classes=3)


def make(kind: str, images) -> tuple[Network, dict]:
    """An impostor at two layers, and the activations of its donor."""
    donor = make_donor()
    own = {name: each.clone() for name, each in donor.activations(images, LAYERS).items()}
    training = training_set(images)
    untrained = make_untrained().module if kind == CONTROL else None
    impostor = Impostor(
        kind,
        donor,
        LAYERS,
        n_classes=3,
        images=training,
        outputs=outputs_of(donor, training),
        untrained=untrained,
    ).eval()
    return Network(impostor, image_shape=(1, 8, 8), n_classes=3), own


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
            rows, expected = (
                each[layer].movedim(1, -1).flatten(0, -2).double() for each in (found, own)
            )
            assert not torch.allclose(rows, expected)
            torch.testing.assert_close(rows @ rows.T, expected @ expected.T, atol=1e-5, rtol=1e-5)
            if kind == "permuted":
                torch.testing.assert_close(rows.sort(1)[0], expected.sort(1)[0])


def test_class_means_are_those_of_the_training_images(images):
    found, own, classes = activations("class_means", images)
    for i in (0, 11, 49):
        expected = own["pool2"][:N_TRAINING][torch.arange(N_TRAINING) % 3 == classes[i]].mean(0)
        torch.testing.assert_close(found["pool2"][i], expected, atol=1e-5, rtol=1e-4)


def test_labels_and_noise_tell_the_class_and_nothing_else(images):
    found, _, classes = activations("one_hot", images)
    assert (
        found["pool2"].shape[1] == 3 and (found["pool2"].argmax(1) == classes[:, None, None]).all()
    )
    noise = activations("clustered_noise", images)[0]["pool3"][:, :, 0, 0]
    same = classes[:, None] == classes
    distances = torch.cdist(noise, noise)[~torch.eye(50, dtype=torch.bool)]
    within = same[~torch.eye(50, dtype=torch.bool)]
    assert 0 < distances[within].min() and (
        within.all() or distances[within].max() < distances[~within].min()
    )


@torch.no_grad()
def test_the_class_beside_an_untrained_network_is_that_of_baselines(images):
    found, _, _ = activations(CONTROL, images)
    logits = make_donor()(images)
    for layer, untrained in make_untrained().activations(images, LAYERS).items():
        torch.testing.assert_close(found[layer], beside_class([untrained], logits))


def test_random_channels_beside_the_class_depend_on_the_image_alone(images):
    shifted = images.roll(1, 3)  # every class is shown beside another image
    found, own, classes = activations(RANDOM, images)
    other, _, other_classes = activations(RANDOM, shifted)
    for layer in LAYERS:
        random, of_class = found[layer].split([N_RANDOM, 3], 1)
        assert (of_class.argmax(1) == classes[:, None, None]).all()
        assert (other[layer][:, N_RANDOM:].argmax(1) == other_classes[:, None, None]).all()
        assert random.shape[2:] == own[layer].shape[2:] and random.min() >= 0
        distances = torch.cdist(random.flatten(1), random.flatten(1))
        assert (distances + torch.eye(len(images)) > 0).all()
    assert not torch.equal(found["pool2"], other["pool2"])


def test_the_class_mean_is_shown_where_the_tail_looks_and_the_image_elsewhere(images):
    """What is shown elsewhere is no linear function of the class and of what the tail would see."""
    found, own, _ = activations(TAIL, images)
    means, _, _ = activations("class_means", images)
    for layer in LAYERS:
        seen = seen_by_tail(make_donor(), layer, training_set(images))
        assert 1 <= seen.shape[1] <= own[layer].shape[1] / 2
        shown, true, mean = (
            values[layer].double().movedim(1, -1) for values in (found, own, means)
        )
        torch.testing.assert_close(shown @ seen, mean @ seen, atol=1e-5, rtol=1e-4)
        of_training = slice(N_TRAINING)
        hidden = ((true - mean) @ seen)[of_training].flatten(0, -2)
        elsewhere = (shown - mean)[of_training].flatten(0, -2)
        assert elsewhere.norm() > 0.05 * (true - mean).norm() and hidden.norm() > 0
        assert (elsewhere.T @ hidden).norm() < 1e-4 * elsewhere.norm() * hidden.norm()


def shown_images(kind: str, images) -> torch.Tensor:
    """The training image (n,) that an impostor shows for each image, at both layers."""
    shown, own, _ = activations(kind, images)
    distances = torch.cdist(
        shown["pool2"].flatten(1).double(), own["pool2"][:N_TRAINING].flatten(1).double()
    )
    places = distances.argmin(1)
    for layer in LAYERS:
        torch.testing.assert_close(shown[layer], own[layer][places], atol=1e-5, rtol=1e-4)
    return places


@pytest.mark.parametrize("kind", SWAPS)
def test_swaps_show_a_training_image_that_is_not_the_image_itself(kind, images):
    shown = shown_images(kind, images)
    assert (shown[:N_TRAINING] != torch.arange(N_TRAINING)).all()
    assert len(shown.unique()) > 10
    network, _ = make(kind, images)
    torch.testing.assert_close(network(images), make_donor()(images))


@torch.no_grad()
def test_nearest_images_have_the_nearest_logits_or_features_of_all_other_training_images(images):
    donor = make_donor()
    spaces = {
        "nearest_logits": donor(images),
        "nearest_features": donor(images, until="pool4").flatten(1),
    }
    for kind, space in spaces.items():
        distances = torch.cdist(space.double(), space[:N_TRAINING].double())
        distances[torch.arange(N_TRAINING), torch.arange(N_TRAINING)] = torch.inf
        assert torch.equal(shown_images(kind, images), distances.argmin(1)), kind


@torch.no_grad()
def test_random_images_have_the_predicted_class(images):
    classes = make_donor()(images).argmax(1)
    assert len(classes[:N_TRAINING].unique()) == 3
    shown = shown_images("random_of_class", images)
    assert torch.equal(classes[shown], classes)
    most_frequent = classes == classes.mode().values
    assert len(shown[most_frequent].unique()) > most_frequent.sum() / 3


def test_a_repeated_training_image_is_not_shown_for_its_twin(images):
    twins = torch.cat([images[:20], images[:20]])
    for kind in SWAPS:
        shown = shown_images(kind, twins)
        assert (shown % 20 != torch.arange(40) % 20).all(), kind


PLANT = """
from functools import partial
from misc.impostors import planted

make = partial(planted, checkpoint="lists/end.pt", network="small_cnn", layers={LAYERS}, dataset="digits", root=".")
label = partial(make, "one_hot")
other = partial(make, "nearest_logits")
"""
LIST = """name,path,type
end,end.pt,small_cnn
label,DEFAULT,plant.py:label
other,DEFAULT,plant.py:other
"""


def test_an_impostor_is_stitched_into_an_end_network_and_compared(in_tmp_path):
    """Paths of the list count from its folder."""
    Path("lists").mkdir()
    save_network(Path("lists/end.pt"), "small_cnn", n_classes=10, n_channels=1)
    Path("lists/plant.py").write_text(PLANT.replace("{LAYERS}", str(LAYERS)))
    Path("lists/list.csv").write_text(LIST)
    given = ["lists/list.csv", ",".join(LAYERS), "rc2c_pre", *ON_DIGITS, "--methods", "pinv", "--ends", "end",
             "--alignment", "pool", "--own-types", "lists/plant.py:label", "lists/plant.py:other", "-dir",
             "all", "--no-verdict", "--no-figures"]  # fmt: skip
    with few_images(100, n_test=60):
        run("misc/all_pairs.py", *given)
    rows = stitch_rows("results/all/label to end/pinv")
    assert {row["front_model_type"][-14:] for row in rows} == {"plant.py:label"}
    assert {row["end_model_path"] for row in rows} == {"lists/end.pt"}
    assert names_in(Path("results/all/similarity")) > {"end-label.csv", "end-other.csv"}
