"""Permutations of images: p-values, null distributions and calibrated values, by hand and on independent data."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from src.results.records import columns, from_record, to_record
from src.results.rows import SimilarityRow
from src.similarity import Comparison, debiased_cka, linear_cka, mutual_knn, procrustes_distance, pwcca_distance
from src.similarity.permutations import null_of, permutations
from src.similarity.registry import MEASURES

FUNCTIONS = {
    "cka": linear_cka, "cka_debiased": debiased_cka, "mutual_knn": mutual_knn,
    "procrustes": procrustes_distance, "pwcca": pwcca_distance,
}  # fmt: skip


def compared(x, y, *, n_permutations: int, **options) -> SimilarityRow:
    """The row of two activations at full rank."""
    comparison = Comparison(["a"], ["b"], n_images=len(x), n_permutations=n_permutations, **options)
    comparison.add({"a": torch.as_tensor(x)}, {"b": torch.as_tensor(y)})
    ((row,),) = comparison.rows()
    return row


def test_null_by_hand():
    permuted = torch.arange(1, 20).double() / 20  # 0.05 to 0.95
    p_value, null, calibrated = null_of("cka", 0.9, permuted)
    assert p_value == pytest.approx(3 / 20) and null == pytest.approx(0.95) and calibrated == 0
    p_value, null, calibrated = null_of("cka", 0.96, permuted)
    assert p_value == pytest.approx(1 / 20) and calibrated == pytest.approx(0.01 / 0.05)
    # of distances the other end counts
    p_value, null, calibrated = null_of("procrustes", 0.02, permuted)
    assert p_value == pytest.approx(1 / 20) and null == pytest.approx(0.05) and calibrated == pytest.approx(0.03 / 0.05)
    assert null_of("procrustes", 0.1, permuted)[::2] == pytest.approx((3 / 20, 0))
    assert null_of("cka", 0.5, torch.arange(200) / 200).null_95 == pytest.approx(190 / 200)  # the 191st
    assert null_of("cka", 1.0, torch.ones(19)) == (1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="18 permutations"):
        null_of("cka", 0.5, torch.rand(18))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_permuted_values_are_those_of_permuted_images(name):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 6)) + 1
    y = np.c_[x[:, :3], rng.normal(size=(30, 4))]
    row = compared(x, y, metrics=[name], n_permutations=25)
    values = torch.tensor([FUNCTIONS[name](x[order], y) for order in permutations(25, 30)], dtype=torch.float64)
    expected = null_of(name, FUNCTIONS[name](x, y), values)
    assert tuple(row.nulls[name]) == pytest.approx(tuple(expected), abs=1e-9)
    assert row.nulls[name].p_value == 1 / 26 and row.nulls[name].calibrated > 0.1
    assert row.n_permutations == 25


def test_permutations_are_the_same_for_all_layers_and_ranks():
    rng = np.random.default_rng(0)
    first = {name: torch.tensor(rng.normal(size=(24, 5, 3, 3))) for name in "ab"}
    second = {name: first[other] + torch.tensor(rng.normal(size=(24, 5, 3, 3))) for name, other in ("ca", "db")}
    options = {"n_images": 24, "metrics": ["cka", "mutual_knn"], "n_permutations": 19, "ranks1": [4, 2]}
    together = Comparison(first, second, **options)
    together.add(first, second)
    for rows in together.rows():
        alone = Comparison([rows[0].layer1], [rows[0].layer2], **options)
        alone.add(first, second)
        (expected,) = alone.rows()
        for row, other in zip(rows, expected, strict=True):
            for name in ("cka", "mutual_knn"):
                assert tuple(row.nulls[name]) == pytest.approx(tuple(other.nulls[name]), abs=1e-12)


def test_positions_as_samples_have_no_permutations():
    x, y = torch.rand(2, 20, 5, 3, 3, dtype=torch.float64)
    options = {"metrics": ["cka", "procrustes"], "n_permutations": 19}
    assert set(compared(x, y, **options).nulls) == {"cka"}
    assert set(compared(x, y, **options, alignment="pool").nulls) == {"cka", "procrustes"}
    comparison = Comparison(["a"], ["b"], n_images=20, **options)
    comparison.add({"a": x}, {"b": y})
    list(comparison.rows())
    assert "procrustes of 1 pairs have no p-values: their samples are positions" in "".join(comparison.warnings())


def test_a_row_is_read_as_it_was_written():
    row = compared(*np.random.default_rng(0).normal(size=(2, 20, 5)), metrics=list(MEASURES), n_permutations=19)
    row = row._replace(model1="f.pt", model2="g.pt", model1_type="cnn", model2_type="vit", dataset="digits", rank1=3)
    record, keys = to_record(row), {"values": MEASURES, "nulls": MEASURES}
    names = columns(SimilarityRow, **keys)
    assert set(record) == set(names)
    assert from_record(SimilarityRow, {name: text_of(value) for name, value in record.items()}, **keys) == row
    first = "model1 model2 layer1 layer2 rank1 rank2 alignment n_samples cka pwcca procrustes pwcca_morcos".split()
    assert names[:12] == first
    texts = ["f.pt", "g.pt", "a", "b", "", "4", "positions", "20", "0.5", "", "nan", ""]
    record = dict.fromkeys(names, "") | dict(zip(first, texts, strict=True))
    read = from_record(SimilarityRow, record | {"model1_type": "cnn", "model2_type": "vit", "dataset": "digits",
                                                "alignment_option": "auto"}, **keys)  # fmt: skip
    assert read[:8] == ("f.pt", "g.pt", "a", "b", None, 4, "positions", 20) and read.nulls == {}
    assert list(read.values) == ["cka", "procrustes"] and math.isnan(read.values["procrustes"])
    assert read.n_permutations is None


def text_of(value) -> str:
    return "" if value is None else str(value)


def test_biased_measures_are_counted():
    x = torch.rand(20, 5, 3, 3)
    for metrics, n_permutations, n in (
        (["cka"], 0, 2),
        (["cka"], 20, 0),
        (["cka_debiased"], 0, 0),
        (["procrustes"], 0, 0),
    ):
        comparison = Comparison(["a"], ["b"], n_images=20, metrics=metrics, n_permutations=n_permutations)
        comparison.add({"a": x}, {"b": x})
        warnings = [line for line in comparison.warnings() if "biased upwards" in line]
        assert [line[:15] for line in warnings] == ([f"CKA of {n} layers"[:15]] if n else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cka", "cka_debiased", "procrustes", "pwcca"])
def test_p_values_of_independent_activations_are_uniform(name):
    """2,000 repetitions; calibrated values are 0 in about 95 % of them."""
    rng = np.random.default_rng(1)
    nulls = [compared(*rng.normal(size=(2, 24, 5)), metrics=[name], n_permutations=99).nulls[name] for _ in range(2000)]
    p_values = np.array([null.p_value for null in nulls]) - rng.random(2000) / 100  # they are multiples of 1/100
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert 0.92 <= np.mean([null.calibrated == 0 for null in nulls]) <= 0.98


@pytest.mark.slow
def test_p_values_of_mutual_knn_are_valid():
    """The measure has few values, and ties make p-values larger than uniform ones."""
    rng = np.random.default_rng(1)
    nulls = [
        compared(*rng.normal(size=(2, 40, 5)), metrics=["mutual_knn"], n_permutations=99).nulls["mutual_knn"]
        for _ in range(1000)
    ]
    p_values = np.array([null.p_value for null in nulls])
    assert all(np.mean(p_values <= level) <= level + 0.02 for level in (0.05, 0.1, 0.5))
    assert 0.92 <= np.mean([null.calibrated == 0 for null in nulls]) <= 0.98
