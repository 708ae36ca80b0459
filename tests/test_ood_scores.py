"""Scores that need no training, energies, fine-tuning losses and detection metrics: goldens, scikit-learn as
oracle, limits, and what they refuse."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import average_precision_score, roc_auc_score

from src.core.choices.scores import SCORES
from src.ood import energy, make_detector, ood_metrics
from src.ood.finetuning import energy_penalty, outlier_exposure_penalty
from src.statistics.detection import auroc_interval
from tests.goldens import numbers, tensor

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
