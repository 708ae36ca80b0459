"""Detectors of activations out of distribution: scores against oracles, the store, and fine-tuning."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import average_precision_score, roc_auc_score

from src.core.choices.scores import SCORES
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.tensors import save_state
from src.datasets.base import ImageSet
from src.models import build_model
from src.ood import energy, make_detector, ood_metrics
from src.ood.finetuning import (
    HalfAndHalf,
    RepresentationClassification,
    energy_penalty,
    finetuning_settings,
    outlier_exposure_penalty,
    untrained_classifier,
)
from src.results.checkpoints import DetectorStore, freeze, new_name
from src.results.network_names import NamedNetwork, content_of
from src.statistics.detection import auroc_interval
from src.training import Settings
from tests.commands import says
from tests.goldens import DATA, numbers, tensor

NAMES = [name for name, score in SCORES.items() if not score.is_trained]
N_CLASSES, WIDTH = 4, 12


def samples(rng, n: int = 300, *, offset: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes with means of their own and a common covariance, off centre: (n, WIDTH) and
    labels."""
    centres = np.random.default_rng(1).normal(size=(N_CLASSES, WIDTH)) + 1
    labels = np.arange(n) % N_CLASSES
    spread = np.linspace(0.1, 1, WIDTH)
    return centres[labels] + rng.normal(size=(n, WIDTH)) * spread + offset, labels


def fitted(name: str, x: np.ndarray, labels: np.ndarray, *, batch_size: int = 64):
    detector = make_detector(name)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        detector.add(torch.tensor(x[batch]), torch.tensor(labels[batch]))
    detector.fit()
    return detector


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mahalanobis(x: np.ndarray, mean: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """scikit-learn's squared distances, with the ridge added to its covariance."""
    found = EmpiricalCovariance(assume_centered=True).fit(centred).covariance_
    ridged = found + 1e-6 * np.trace(found) / WIDTH * np.eye(WIDTH)
    oracle = EmpiricalCovariance()
    oracle.location_, oracle.precision_, oracle.store_precision = mean, np.linalg.inv(ridged), True
    return oracle.mahalanobis(x)


def test_mahalanobis_equals_scikit_learn(rng):
    (x, labels), (new, _) = samples(rng), samples(rng, 50, offset=0.3)
    z, means = unit(x), np.stack([unit(x)[labels == c].mean(0) for c in range(N_CLASSES)])
    expected = np.min([mahalanobis(unit(new), mean, z - means[labels]) for mean in means], axis=0)
    found = fitted("mahalanobis", x, labels).score(torch.tensor(new))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_batches_order_and_classes_without_samples_do_not_count(rng, name):
    (x, labels), (new, _) = samples(rng), samples(rng, 50)
    expected = fitted(name, x, labels).score(torch.tensor(new))
    order = np.argsort(labels, kind="stable")  # classes appear one after the other
    found = fitted(name, x[order], 3 * labels[order] + 2, batch_size=7).score(torch.tensor(new))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_little_variance_about_a_far_mean_keeps_its_digits(rng):
    """Distances do not change with the scale of the differences, which here are a millionth of the
    means."""
    (x, labels), (new, _) = samples(rng), samples(rng, 50)
    scores = []
    for scale, offset in ((1, 0), (1e-6, 1)):
        detector = make_detector("mahalanobis")
        detector.features = torch.Tensor.double  # without norms
        detector.add(torch.tensor(scale * x + offset), torch.tensor(labels))
        detector.fit()
        scores.append(detector.score(torch.tensor(scale * new + offset)))
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-5, atol=1e-5)


def test_dead_channels_are_no_hiding_place(rng):
    """What leaves the subspace of the training data, by a channel that was dead in it, is far
    away."""
    x, labels = samples(rng)
    x[:, 3] = 0
    new = x[:20].copy()
    new[:, 3] = 1
    detector = fitted("mahalanobis", x, labels)
    before, after = (detector.score(torch.tensor(z)) for z in (x[:20], new))
    assert before.isfinite().all()
    assert (after > 100 * before.abs() + 100).all()


def test_what_cannot_be_fitted(rng):
    x, labels = samples(rng, 40)
    cases = [
        ("mahalanobis", x, labels - 1, "without labels"),
        ("mahalanobis", np.ones_like(x), labels, "constant"),
        *((name, np.where(x == x[7, 2], np.nan, x), labels, "not finite") for name in NAMES),
    ]
    for name, activations, of_classes, reason in cases:
        with pytest.raises(ValueError, match=reason):
            fitted(name, activations, of_classes)


@pytest.mark.parametrize("name", NAMES)
def test_activations_that_are_not_finite_score_nan(rng, name):
    x, labels = samples(rng, 40)
    detector = fitted(name, x, labels)
    assert detector.score(torch.tensor(x)).isfinite().all()
    assert detector.score(torch.tensor(x * np.nan)).isnan().all()


LOSSES = sorted({key.split("/")[0] for key in numbers("finetune_loss")})
MEASURES = sorted(
    key.split("/")[0] for key in numbers("measures") if key.endswith("/auroc_aupr_fpr95")
)
MEASURES = [case for case in MEASURES if len(numbers("measures").get(f"{case}/pos", ()))]


@pytest.mark.parametrize("score", ["energy", "OE"])
@pytest.mark.parametrize("case", LOSSES)
def test_losses_and_gradients_equal_the_public_code(case, score):
    def golden(key: str) -> torch.Tensor:
        return tensor("finetune_loss", f"{case}/{key}")

    logits, labels = golden("logits").requires_grad_(), golden("labels")
    labels = F.pad(labels, (0, len(logits) - len(labels)), value=-1)
    cross_entropy = F.cross_entropy(logits, labels, ignore_index=-1)
    m_in, m_out = golden("m_in_m_out").tolist()
    accuracy_drops = {
        "energy": energy_penalty(logits, labels, m_in=m_in, m_out=m_out),
        "OE": outlier_exposure_penalty(logits, labels),
    }
    loss = cross_entropy + accuracy_drops[score]
    assert cross_entropy.item() == pytest.approx(golden(f"{score}/ce").item(), rel=1e-6)
    assert loss.item() == pytest.approx(golden(f"{score}/loss").item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, golden(f"{score}/grad"), rtol=1e-5, atol=1e-7)


def test_energy_is_minus_logsumexp_even_of_large_logits():
    assert energy(torch.tensor([[0.0, 0.0]])).item() == pytest.approx(-np.log(2))
    assert energy(torch.tensor([[1000.0, 0.0]])).item() == -1000


@pytest.mark.parametrize("case", MEASURES)
def test_metrics_equal_the_public_code(case):
    golden = numbers("measures")
    energies = -golden[f"{case}/pos"], -golden[f"{case}/neg"]
    assert ood_metrics(*energies) == pytest.approx(golden[f"{case}/auroc_aupr_fpr95"], rel=1e-12)


def test_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    for case in range(10):
        positives, negatives = (
            rng.normal(0, 1, rng.integers(2, 60)),
            rng.normal(0.7, 1, rng.integers(2, 60)),
        )
        if case % 2:  # many ties
            positives, negatives = positives.round(), negatives.round()
        truth, scores = (
            np.repeat([1, 0], [len(positives), len(negatives)]),
            -np.concatenate([positives, negatives]),
        )
        expected = roc_auc_score(truth, scores), average_precision_score(truth, scores)
        assert ood_metrics(positives, negatives)[:2] == pytest.approx(expected)


def test_fpr95_takes_the_nearest_recall_also_from_below():
    positives = np.arange(
        10.0
    )  # recalls are multiples of 0.1: 0.9 and 1.0 are equally near to 0.95, the lower wins
    assert ood_metrics(positives, np.array([8.5, 9.5])).fpr95 == 0.5


def test_metrics_refuse_what_has_none():
    one = np.array([1.0])
    for bad in (np.array([]), one * np.nan, one * np.inf):
        for pair in ((bad, one), (one, bad)):
            with pytest.raises(ValueError, match="energies"):
                ood_metrics(*pair)


@pytest.mark.parametrize("paired", [True, False])
def test_an_auroc_interval_rests_on_delongs_components(paired):
    """By all pairs of scores, with ties (DeLong et al. 1988)."""
    rng = np.random.default_rng(0)
    own, other = rng.integers(0, 12, size=40), rng.integers(4, 16, size=40)
    order = (own[:, None] < other) + 0.5 * (own[:, None] == other)
    above, below, auroc = order.mean(1), order.mean(0), order.mean()
    variance = sum(
        np.var(part, ddof=1) / 40 for part in ([above + below] if paired else [above, below])
    )
    half = 1.959964 * variance**0.5 / (auroc * (1 - auroc))
    ends = np.log(auroc / (1 - auroc)) + np.array([-half, half])
    assert auroc_interval(own, other, paired=paired) == pytest.approx(
        1 / (1 + np.exp(-ends)), rel=1e-6
    )
    assert auroc_interval(own, own + 20, paired=paired) == (1, 1)
    assert auroc_interval(own, own - 20, paired=paired) == (0, 0)


@pytest.mark.parametrize("paired", [True, False])
def test_an_auroc_of_scores_that_are_not_numbers_has_no_interval(paired):
    own = np.arange(4.0)
    flawed = np.array([5, np.nan, 6, 7])
    assert np.isnan(auroc_interval(own, flawed, paired=paired)).all()
    assert np.isnan(auroc_interval(flawed, own, paired=paired)).all()


PUBLIC = json.loads((DATA / "public_meta.json").read_text())
SHAPES = {"representation_shape": (4, 2, 2), "image_shape": (1, 8, 8)}


def entry(**changes) -> dict:
    made = {
        "model_type": "repr_cls_resnet18",
        "source_model_type": "small_cnn",
        "source_model_path": "m.pt",
        "source_layer": "pool1",
        "id_dataset": "digits",
        "orig_input_shape": [1, 8, 8],
        "required_input_shape": [4, 2, 2],
        "training_loc": "d",
    }
    return made | changes


@pytest.fixture
def store(tmp_path):
    return DetectorStore(tmp_path / "store")


STATE = {"weight": torch.zeros(2)}
IMAGES, CPU = InputSpec(10, (1, 8, 8)), torch.device("cpu")


def add(store: DetectorStore, state=STATE, **changes) -> str:
    name = new_name()
    store.add(name, state, entry(**changes))
    return name


def test_adding_keeps_the_table_of_the_public_code_and_its_layout(store):
    store.folder.mkdir()
    store.meta.write_text(json.dumps(PUBLIC, indent=4))
    source = NamedNetwork("models/m1/model_3.pt", "resnet18")
    (found,) = store.names_by_layer(source)["layer2.0"]
    assert PUBLIC[found]["source_layer"] == "layer2.0"
    name = add(store)
    assert list(store.entries()) == [*PUBLIC, name]
    assert store.meta.read_text().startswith('{\n    "') and (store.folder / name).is_file()
    assert len(name) == 35 and name.endswith(".pt")
    with pytest.raises(
        UserError, match=r"no detector for nope .*the store has detectors for layer"
    ):
        store.load(source, "nope", IMAGES, device=CPU)


def test_content_counts_more_than_the_path(store, tmp_path):
    names = ("a.pt", "moved.pt", "other.pt")
    for name in names:
        save_state(tmp_path / name, {"weight": torch.full((2,), float(name == "other.pt"))})
    source, moved, other = (NamedNetwork(str(tmp_path / name), "small_cnn") for name in names)
    name = add(store, source_model_path=source.path, source_sha256=content_of(source.path))
    assert store.names_by_layer(moved) == {"pool1": [name]} and store.names_by_layer(other) == {}
    # a checkpoint that was trained anew under the old path is another network
    (tmp_path / "a.pt").write_bytes((tmp_path / "other.pt").read_bytes())
    assert store.names_by_layer(source) == {}


def test_loads_the_newest_detector_and_refuses_one_of_another_shape(store, capsys):
    detector = build_model("repr_cls_resnet18", n_classes=10, **SHAPES)
    add(store, {key: value + 1 for key, value in detector.state_dict().items()})
    name = add(store, detector.state_dict())
    source = NamedNetwork("m.pt", "small_cnn")
    loaded = store.load(source, "pool1", IMAGES, device=CPU)
    assert says(capsys.readouterr().err, "2 detectors", "pool1 of m.pt", name)
    x = torch.rand(2, 4, 2, 2)
    torch.testing.assert_close(loaded.network(x), detector.eval()(x))
    torch.testing.assert_close(loaded.score(x), energy(detector(x)))
    with pytest.raises(UserError, match="is for images of 1×8×8 pixels, not 3×32×32"):
        store.load(source, "pool1", InputSpec(10, (3, 32, 32)), device=CPU)
    for reason, changes in (
        (r"size mismatch for conv1\.weight", {"required_input_shape": [8, 2, 2]}),
        ("unknown detector in .*meta.json 'nets.py:run'", {"model_type": "nets.py:run"}),
    ):
        add(store, detector.state_dict(), **changes)
        with pytest.raises(UserError, match=reason):
            store.load(source, "pool1", IMAGES, device=CPU)


IMAGES = InputSpec(10, (1, 8, 8))


def image_set(n: int, *, n_classes: int = 10, shape=(1, 8, 8)) -> ImageSet:
    """Images that carry their number in their first pixel."""
    pixels = torch.zeros(n, *shape, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(n)
    return ImageSet(pixels, torch.arange(n) % n_classes if n_classes else None, n_classes=n_classes)


@pytest.fixture
def source():
    torch.manual_seed(0)
    return freeze(build_model("small_cnn", n_channels=1), "cpu")


def test_only_the_front_part_of_the_source_runs_and_nothing_of_it_learns(source, monkeypatch):
    """The penalty belongs to the loss of training only."""
    classifier, shape = untrained_classifier("repr_cls_resnet18", source, "pool2", IMAGES, seed=0)
    task = RepresentationClassification(source, "pool2", classifier)
    resized = classifier(torch.rand(2, *shape), until="resize")
    assert shape == (32, 2, 2) and resized.shape == (2, 32, 8, 8)

    def behind(*_):
        raise AssertionError("a layer behind the last one needed was computed")

    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, -1, -1])
    list(task.losses(images, labels, training=True))  # traces the source
    classifier.module.zero_grad()
    monkeypatch.setattr(task.source.get_submodule("pool3"), "forward", behind)
    task.train(True)
    assert classifier.module.training and not task.source.module.training
    (group,) = task.losses(images, labels, training=True)
    group.losses.sum().backward()
    assert classifier.module.conv1.weight.grad is not None
    assert all(parameter.grad is None for parameter in task.source.parameters())

    task.penalty = lambda *_: torch.tensor(7.0)
    task.train(False)
    (trained,), (validated,) = (
        list(task.losses(images, labels, training=mode)) for mode in (True, False)
    )
    torch.testing.assert_close(trained.losses - 7, trained.cross_entropies)
    torch.testing.assert_close(validated.losses, trained.cross_entropies)


def test_batches_are_half_id_half_ood_and_epochs_disjoint():
    mixed = HalfAndHalf(image_set(10), image_set(25, n_classes=0), like=image_set(5), batch_size=8)
    seen = []
    for epoch in (1, 2, 3):
        batches = list(mixed.epoch(8, seed=0, epoch=epoch))
        ood = [
            (images[labels == -1][:, 0, 0, 0] * 255).round().int().tolist()
            for images, labels in batches
        ]
        seen.append(sum(ood, []))
        assert mixed.n_batches(8) == 3 and len(batches) == (
            2 if epoch == 3 else 3
        )  # 4, 4, 2 of each set; 4, 1
        for (images, labels), of_batch in zip(batches[:-1], ood, strict=False):
            assert images.shape == (8, 1, 8, 8) and (labels[:4] >= 0).all() and len(of_batch) == 4
    assert [len(numbers) for numbers in seen] == [10, 10, 5]
    assert sorted(sum(seen, [])) == list(range(25))


@pytest.mark.parametrize(
    ("id_set", "ood_set", "reason"),
    [
        ({}, {"shape": (3, 8, 8)}, "inputs of -ftoodd are 3×8×8, inputs of -d are 1×8×8"),
        ({"shape": (1, 4, 4)}, {}, "inputs of -ftidd are 1×4×4"),
        ({"n_classes": 3}, {}, "-ftidd has 3 classes, -d 10"),
    ],
)
def test_sets_that_do_not_go_together_are_refused(id_set, ood_set, reason):
    sets = image_set(5, **id_set), image_set(5, **ood_set)
    with pytest.raises(UserError, match=reason):
        HalfAndHalf(*sets, like=image_set(5), batch_size=4)


@pytest.mark.parametrize(("n_epochs", "half"), [(20, 10), (1, 0)])
def test_the_learning_rate_drops_after_few_updates(n_epochs, half):
    before = Settings(100, 64, reduce_lr_epochs=[50])
    tuning = finetuning_settings(before, n_epochs=n_epochs)
    found = (tuning.n_epochs, tuning.reduce_lr_epochs, tuning.reduce_lr_unit)
    assert found == (n_epochs, [half], "updates")
