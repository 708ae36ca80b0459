"""Permutations of images: p-values, null distributions and calibrated values, by hand and by
permuting the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from src.core.choices.similarity import MEASURES
from src.core.values import ALL_IMAGES, LARGEST, WITHIN_CLASSES, ComparedLayers
from src.similarity import (
    debiased_cka,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    pwcca_distance,
)
from src.similarity.nulls import null_of, permuted_orders
from tests.commands import says
from tests.comparisons import compared, nulls_of, values_of

GOLDENS = Path(__file__).parent / "data" / "numerics" / "calibrated_similarity.npz"
FUNCTIONS = {
    "cka": linear_cka,
    "cka_debiased": debiased_cka,
    "mutual_knn": mutual_knn,
    "procrustes": procrustes_distance,
    "pwcca": pwcca_distance,
}


def layers_of(x, y, **options) -> ComparedLayers:
    """The comparison of two activations at full rank; `labels` adds permutations within classes."""
    ((row,),) = compared({"a": torch.as_tensor(x)}, {"b": torch.as_tensor(y)}, **options).results()
    return row


def test_null_by_hand():
    permuted = torch.arange(1, 20).double() / 20  # 0.05 to 0.95
    p_value, null, calibrated = null_of(MEASURES["cka"], 0.9, permuted)
    assert p_value == pytest.approx(3 / 20) and null == pytest.approx(0.95) and calibrated == 0
    p_value, null, calibrated = null_of(MEASURES["cka"], 0.96, permuted)
    assert p_value == pytest.approx(1 / 20) and calibrated == pytest.approx(0.01 / 0.05)
    # of distances the other end counts
    p_value, null, calibrated = null_of(MEASURES["procrustes"], 0.02, permuted)
    assert (
        p_value == pytest.approx(1 / 20)
        and null == pytest.approx(0.05)
        and calibrated == pytest.approx(0.03 / 0.05)
    )
    assert null_of(MEASURES["cka"], 0.5, torch.arange(200) / 200).null_95 == pytest.approx(
        190 / 200
    )  # the 191st
    assert null_of(MEASURES["cka"], 1.0, torch.ones(19)) == (1.0, 1.0, 0.0)


def with_shared_classes(rng, *, n_classes: int = 3, n_each: int = 8, width: int = 5):
    """Labels (n,), and two representations that have nothing in common but the classes: means and
    independent noise."""
    labels = np.repeat(np.arange(n_classes), n_each)
    x, y = (
        rng.normal(size=(n_classes, width))[labels] * 2 + rng.normal(size=(len(labels), width))
        for _ in range(2)
    )
    return torch.tensor(labels), x, y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_permuted_values_are_those_of_permuted_images(name):
    """Of all images, and within the classes."""
    labels, x, y = with_shared_classes(np.random.default_rng(0))
    row = layers_of(x, y, metrics=[name], n_permutations=25, labels=labels)
    for images, of in ((ALL_IMAGES, torch.zeros(24)), (WITHIN_CLASSES, labels)):
        values = [FUNCTIONS[name](x[order], y) for order in permuted_orders(25, of)]
        expected = null_of(
            MEASURES[name], FUNCTIONS[name](x, y), torch.tensor(values, dtype=torch.float64)
        )
        assert tuple(nulls_of(row, images)[name]) == pytest.approx(tuple(expected), abs=1e-9)
    assert nulls_of(row) == nulls_of(layers_of(x, y, metrics=[name], n_permutations=25))


def test_permutations_are_the_same_for_all_layers_and_ranks():
    rng = np.random.default_rng(0)
    first = {name: torch.tensor(rng.normal(size=(24, 5, 3, 3))) for name in "ab"}
    second = {
        name: first[other] + torch.tensor(rng.normal(size=(24, 5, 3, 3)))
        for name, other in ("ca", "db")
    }
    options = {"metrics": ["cka", "procrustes"], "n_permutations": 19, "alignment": "pool"}
    for rows in compared(first, second, ranks1=[2, 4], ranks2=[None, 3], **options).results():
        one, two = (
            {name: side[name]} for side, name in ((first, rows[0].layer1), (second, rows[0].layer2))
        )
        for row in rows:
            ((alone,),) = compared(
                one, two, ranks1=[row.rank1], ranks2=[row.rank2], **options
            ).results()
            assert len(nulls_of(row)) == 2
            assert values_of(row) == pytest.approx(values_of(alone), abs=1e-12)
            for name, null in nulls_of(row).items():
                assert null == pytest.approx(nulls_of(alone)[name], abs=1e-12)


@pytest.mark.parametrize("case", ["related", "weak", "independent"])
def test_the_largest_over_layers_is_that_of_another_implementation(case):
    """PyPI's calibrated-similarity 0.1.1, in single precision: see tests/data/README.md. It has the
    threshold of the values with the actual one among them, which is another one where the value is
    below it."""
    data = np.load(GOLDENS)
    sides = [
        {f"{side}{i}": torch.from_numpy(data[f"{case}_{side}{i}"]).double() for i in range(n)}
        for side, n in (("x", 3), ("y", 2))
    ]
    comparison = compared(*sides, metrics=["cka"], n_permutations=99)
    comparison.orders = {ALL_IMAGES: torch.from_numpy(data["orders"]).long()}
    rows = [row for (row,) in comparison.results()]
    largest = max(rows, key=lambda row: row.values["cka"].value)
    (single,) = (row for row in rows if (row.layer1, row.layer2) == ("x1", "y0"))
    for row, images, expected in (
        (largest, LARGEST[ALL_IMAGES], data[f"{case}_largest"]),
        (single, ALL_IMAGES, data[f"{case}_single"]),
    ):
        null = nulls_of(row, images)["cka"]
        calibrated, p_value, threshold = expected
        assert (null.calibrated, null.p_value) == pytest.approx((calibrated, p_value), abs=1e-4)
        if p_value <= 0.05:
            assert null.null_95 == pytest.approx(threshold, abs=1e-4)


@pytest.mark.parametrize("name", ["cka", "procrustes", "pwcca"])
@pytest.mark.parametrize(
    ("images", "of"), [(ALL_IMAGES, 24 * [0]), (WITHIN_CLASSES, 8 * [0, 1, 2])]
)
def test_values_are_set_against_the_largest_of_permuted_images(rng, name, images, of):
    """In either direction, and within classes; by permuting the images."""
    labels, function = torch.tensor(of), FUNCTIONS[name]
    x = {f"x{i}": torch.from_numpy(rng.normal(size=(24, 4))) for i in range(2)}
    y = {f"y{i}": torch.from_numpy(rng.normal(size=(24, 3))) for i in range(2)}
    options = {"n_permutations": 19, "labels": labels, "alignment": "pool"}
    rows = [row for (row,) in compared(x, y, metrics=[name], **options).results()]
    orders = permuted_orders(19, labels)

    def expected(value, measure) -> tuple[float, ...]:
        extreme = max if name == "cka" else min
        values = [
            [measure(a[order], b) for a in x.values() for b in y.values()] for order in orders
        ]
        largest = torch.tensor(list(map(extreme, values)), dtype=torch.float64)
        return tuple(null_of(MEASURES[name], value, largest))

    for row in rows:
        found = nulls_of(row, LARGEST[images])[name]
        assert tuple(found) == pytest.approx(expected(row.values[name].value, function), abs=1e-9)
        assert found.p_value >= nulls_of(row, images)[name].p_value
    if name == "pwcca":  # which is not symmetric
        back = rows[0].reversed_values[name]
        turned = expected(back.value, lambda one, other: function(other, one))
        assert tuple(back.nulls[LARGEST[images]]) == pytest.approx(turned, abs=1e-9)


def test_permutations_by_hand():
    labels = torch.tensor([2, 0, 2, 1, 0, 2])
    orders = permuted_orders(3000, labels)
    assert torch.equal(orders.sort(1).values, torch.arange(6).expand(3000, 6))
    assert torch.equal(labels[orders], labels.expand(3000, 6))  # every place keeps its class
    assert torch.equal(orders, permuted_orders(3000, labels))
    found, counts = orders.unique(dim=0, return_counts=True)
    assert len(found) == 6 * 2  # 3! orders of class 2, and 2! of class 0
    assert (counts - 250).abs().max() < 75  # five standard deviations
    assert len(permuted_orders(200, torch.zeros(4)).unique(dim=0)) == 24


def test_images_alone_in_their_class_are_warned_of():
    x, y = torch.rand(2, 20, 5)
    for labels, n, has_null in (
        (torch.arange(20), 20, False),
        (torch.arange(20).clamp(min=4), 15, True),
    ):
        comparison = compared({"a": x}, {"b": y}, metrics=["cka"], n_permutations=19, labels=labels)
        ((row,),) = comparison.results()
        assert bool(nulls_of(row, WITHIN_CLASSES)) == has_null
        assert says("\n".join(comparison.warnings()), f"{n} of 20 inputs", "only ones", "class")


def test_positions_as_samples_have_no_permutations():
    """So that there is no largest of all pairs; nor of a single one, whose largest value is its own."""
    x, y = torch.rand(2, 20, 5, 3, 3, dtype=torch.float64)
    options = {"metrics": ["cka", "procrustes"], "n_permutations": 19}
    assert set(nulls_of(layers_of(x, y, **options))) == {"cka"}
    pooled = layers_of(x, y, **options, alignment="pool")
    assert set(nulls_of(pooled)) == {"cka", "procrustes"}
    assert not nulls_of(pooled, LARGEST[ALL_IMAGES])
    comparison = compared({"a": x, "v": x.mean((2, 3))}, {"b": y}, **options)
    assert [set(nulls_of(row, LARGEST[ALL_IMAGES])) for (row,) in comparison.results()] == 2 * [
        {"cka"}
    ]
    said = "\n".join(comparison.warnings())
    assert says(said, "procrustes of 1 pairs", "no p-values", "positions") and "cka" not in said


MAPS, WIDE_MAPS = (
    torch.rand(20, 5, 3, 3),
    torch.rand(20, 12, 3, 3),
)  # 45 features, or 5 of 180 positions
WIDE, NARROW, FEW = torch.rand(20, 12), torch.rand(20, 5), torch.rand(3, 30, 2, 2)


@pytest.mark.parametrize(
    ("x", "y", "metrics", "options", "biased"),
    [
        (MAPS, MAPS, ["cka"], {}, ["CKA is biased upwards", "more features", "(2 of 2)"]),
        (MAPS, MAPS, ["cka"], {"n_permutations": 20}, None),  # the null shows it
        (MAPS, MAPS, ["cka_debiased", "mutual_knn", "procrustes", "pwcca"], {}, None),
        (WIDE, NARROW, ["cka", "procrustes"], {}, None),  # 17 features of 20 images
        (WIDE, WIDE, ["procrustes", "pwcca"], {}, ["procrustes, pwcca of 1 pair", "downwards"]),
        (WIDE, WIDE, ["procrustes"], {"n_permutations": 20}, None),
        (WIDE, WIDE, ["procrustes"], {"ranks1": [8, 2]}, None),  # 8 + 12 features
        (WIDE_MAPS, WIDE_MAPS, ["procrustes"], {}, None),
        (WIDE_MAPS, WIDE_MAPS, ["procrustes"], {"alignment": "pool"}, ["procrustes", "downwards"]),
        # Without permutations: positions have none
        (FEW, FEW, ["procrustes"], {"n_permutations": 20}, ["procrustes", "downwards"]),
    ],
)  # fmt: skip
def test_biased_measures_are_counted(x, y, metrics, options, biased):
    options = {"n_permutations": 0} | options
    comparison = compared({"a": x}, {"b": y}, metrics=metrics, **options)
    said = [line for line in comparison.warnings() if "biased" in line.split(";")[0]]
    assert len(said) == bool(biased)
    assert not biased or says(said[0], *biased)


@pytest.mark.slow
def test_p_values_within_classes_are_uniform_when_only_labels_are_shared():
    """200 simulated data sets; permutations of all images reject nearly all of them."""
    rng = np.random.default_rng(1)
    freely, within = [], []
    for _ in range(200):
        labels, x, y = with_shared_classes(rng)
        row = layers_of(x, y, metrics=["cka"], n_permutations=99, labels=labels)
        freely.append(nulls_of(row)["cka"].p_value)
        within.append(nulls_of(row, WITHIN_CLASSES)["cka"].p_value)
    assert (
        kstest(np.array(within) - rng.random(200) / 100, "uniform").pvalue > 0.05
    )  # they are multiples of 1/100
    assert np.mean(np.array(freely) <= 0.05) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cka", "cka_debiased", "procrustes", "pwcca"])
def test_p_values_of_independent_activations_are_uniform(name):
    """1,000 repetitions; calibrated values are 0 in about 95 % of them."""
    rng, nulls = np.random.default_rng(1), []
    for x, y in rng.normal(size=(1000, 2, 24, 5)):
        nulls.append(nulls_of(layers_of(x, y, metrics=[name], n_permutations=99))[name])
    p_values = np.array([null.p_value for null in nulls])  # multiples of 1/100
    assert kstest(p_values - rng.random(1000) / 100, "uniform").pvalue > 0.01
    assert 0.92 <= np.mean([null.calibrated == 0 for null in nulls]) <= 0.98
