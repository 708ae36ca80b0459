"""Permutations of images: p-values, null distributions and calibrated values, by hand and by
permuting the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from src.choices.similarity import MEASURES
from src.similarity import (
    debiased_cka,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    pwcca_distance,
)
from src.similarity.permutations import null_of, permutations
from src.values import ALL_IMAGES, LARGEST, WITHIN_CLASSES, ComparedLayers
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
        values = [FUNCTIONS[name](x[order], y) for order in permutations(25, of)]
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


def test_values_are_set_against_the_largest_of_permuted_images(rng):
    """By each measure, in either direction, and within classes; by permuting the images."""
    labels = torch.arange(24) % 3
    x = {f"x{i}": torch.from_numpy(rng.normal(size=(24, 4))) for i in range(2)}
    y = {f"y{i}": torch.from_numpy(rng.normal(size=(24, 3))) for i in range(2)}
    names = ["cka", "procrustes", "pwcca"]
    comparison = compared(
        x, y, metrics=names, n_permutations=19, labels=labels, both_ways=True, alignment="pool"
    )
    rows = [row for (row,) in comparison.results()]
    for images, of in ((ALL_IMAGES, torch.zeros(24)), (WITHIN_CLASSES, labels)):
        orders = permutations(19, of)
        for name in names:
            extreme = max if name == "cka" else min
            function = FUNCTIONS[name]
            for row in rows:
                largest = [
                    extreme(
                        function(one[order], other) for one in x.values() for other in y.values()
                    )
                    for order in orders
                ]
                value = row.values[name].value
                expected = null_of(
                    MEASURES[name], value, torch.tensor(largest, dtype=torch.float64)
                )
                found = nulls_of(row, LARGEST[images])[name]
                assert tuple(found) == pytest.approx(tuple(expected), abs=1e-9)
                assert found.p_value >= nulls_of(row, images)[name].p_value
        back = [
            min(pwcca_distance(other, one[order]) for one in x.values() for other in y.values())
            for order in orders
        ]
        similarity = rows[0].reversed_values["pwcca"]
        expected = null_of(
            MEASURES["pwcca"], similarity.value, torch.tensor(back, dtype=torch.float64)
        )
        assert tuple(similarity.nulls[LARGEST[images]]) == pytest.approx(tuple(expected), abs=1e-9)


def test_without_permutations_of_all_pairs_there_is_no_largest():
    """As of positions; and none of a single pair, whose largest value is its own."""
    x, y = torch.rand(2, 20, 5, 3, 3, dtype=torch.float64)
    options = {"metrics": ["cka", "procrustes"], "n_permutations": 19}
    rows = compared({"a": x, "v": x.mean((2, 3))}, {"b": y}, **options).results()
    of_pairs = [nulls_of(row, LARGEST[ALL_IMAGES]) for (row,) in rows]
    assert [set(nulls) for nulls in of_pairs] == [{"cka"}, {"cka"}]
    assert not nulls_of(layers_of(x, y, **options), LARGEST[ALL_IMAGES])


def test_the_largest_of_independent_layers_is_seldom_called_similar(rng):
    """The smallest p-value of 16 pairs is often small, by chance."""
    alone, together = [], []
    for _ in range(40):
        x, y = (
            {f"{i}": torch.from_numpy(rng.normal(size=(12, 2))) for i in range(4)} for _ in range(2)
        )
        rows = [row for (row,) in compared(x, y, metrics=["cka"], n_permutations=19).results()]
        alone.append(min(nulls_of(row)["cka"].p_value for row in rows))
        together.append(min(nulls_of(row, LARGEST[ALL_IMAGES])["cka"].p_value for row in rows))
    assert np.mean(np.array(alone) < 0.06) > 0.25
    assert np.mean(np.array(together) < 0.06) < 0.2


def test_permutations_by_hand():
    labels = torch.tensor([2, 0, 2, 1, 0, 2])
    orders = permutations(3000, labels)
    assert torch.equal(orders.sort(1).values, torch.arange(6).expand(3000, 6))
    assert torch.equal(labels[orders], labels.expand(3000, 6))  # every place keeps its class
    assert torch.equal(orders, permutations(3000, labels))
    found, counts = orders.unique(dim=0, return_counts=True)
    assert len(found) == 6 * 2  # 3! orders of class 2, and 2! of class 0
    assert (counts - 250).abs().max() < 75  # five standard deviations
    assert len(permutations(200, torch.zeros(4)).unique(dim=0)) == 24


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
    x, y = torch.rand(2, 20, 5, 3, 3, dtype=torch.float64)
    options = {"metrics": ["cka", "procrustes"], "n_permutations": 19}
    assert set(nulls_of(layers_of(x, y, **options))) == {"cka"}
    assert set(nulls_of(layers_of(x, y, **options, alignment="pool"))) == {"cka", "procrustes"}
    comparison = compared({"a": x}, {"b": y}, **options)
    said = "\n".join(comparison.warnings())
    assert says(said, "procrustes of 1 pairs", "no p-values", "positions") and "cka" not in said


def test_biased_measures_are_counted():
    def said(x, y, *metrics, n_permutations=0, **options) -> list[str]:
        comparison = compared(
            {"a": x}, {"b": y}, metrics=metrics, n_permutations=n_permutations, **options
        )
        return [line for line in comparison.warnings() if "biased" in line.split(";")[0]]

    maps, wider = (
        torch.rand(20, 5, 3, 3),
        torch.rand(20, 12, 3, 3),
    )  # 45 features of 20 images; or 5 of 180 positions
    (line,) = said(maps, maps, "cka")
    assert says(line, "CKA of 2 layers", "biased upwards", "more features")
    assert not said(maps, maps, "cka", n_permutations=20)  # the null shows it
    assert not said(maps, maps, "cka_debiased", "mutual_knn") and not said(
        maps, maps, "procrustes", "pwcca"
    )
    wide, narrow = torch.rand(20, 12), torch.rand(20, 5)
    assert not said(wide, narrow, "cka", "procrustes")  # 17 features of 20 images
    (line,) = said(wide, wide, "procrustes", "pwcca_morcos")
    assert says(line, "procrustes, pwcca_morcos", "of 1 pairs", "biased downwards")
    assert not said(wide, wide, "procrustes", n_permutations=20)
    assert not said(wide, wide, "procrustes", ranks1=[8, 2])  # 8 + 12 features
    assert not said(wider, wider, "procrustes") and said(
        wider, wider, "procrustes", alignment="pool"
    )
    few_positions = torch.rand(2, 3, 30, 2, 2)  # without permutations: positions have none
    assert said(*few_positions, "procrustes", n_permutations=20)


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
    rng = np.random.default_rng(1)
    nulls = [
        nulls_of(layers_of(*rng.normal(size=(2, 24, 5)), metrics=[name], n_permutations=99))[name]
        for _ in range(1000)
    ]
    p_values = (
        np.array([null.p_value for null in nulls]) - rng.random(1000) / 100
    )  # they are multiples of 1/100
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert 0.92 <= np.mean([null.calibrated == 0 for null in nulls]) <= 0.98
