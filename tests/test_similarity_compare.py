"""Activations of all shapes at all ranks: goldens, alignment, and equality with one comparison at a time."""

import math

import numpy as np
import pytest
import torch

from src.errors import UserError
from src.low_rank import as_rows, low_rank_approx
from src.options import SIMILARITIES
from src.similarity import Comparison, Undefined, compare, linear_cka, procrustes_distance, pwcca_distance
from src.similarity.layers import Layer, alignment
from src.similarity.pairs import LayerPair
from tests.goldens import numbers, tensor

GOLDENS = sorted(
    key.removesuffix("/cka_pwcca_procrustes")
    for key in numbers("metrics")
    if key.endswith("/cka_pwcca_procrustes") and "n_samples" not in key
)


def golden_case(key: str):
    """Activations, ranks, and their [CKA, PWCCA, Procrustes] in single and, where they are known, double precision."""
    case, _, ranks = key.partition("/")
    activations = [tensor("metrics", f"{case}/act{side}") for side in (1, 2)]
    if ranks == "swapped":
        activations, ranks = activations[::-1], "r1=None,r2=None"
    ranks = [None if text.endswith("None") else int(text[3:]) for text in ranks.split(",")]
    single = numbers("metrics")[f"{key}/cka_pwcca_procrustes"]
    return activations, ranks, single, numbers("metrics").get(f"{key}/cka_pwcca_procrustes_64")


def at_ranks(activations, ranks1, ranks2, *, batch_size: int = 7, **options):
    """The rows of two activations, given batch by batch."""
    comparison = Comparison(["a"], ["b"], n_images=len(activations[0]), **options)
    for first, second in zip(*(x.split(batch_size) for x in activations), strict=True):
        comparison.add({"a": first}, {"b": second})
    (rows,) = comparison.rows(ranks1, ranks2)
    return rows


@pytest.mark.parametrize("key", GOLDENS)
def test_equals_the_public_code_where_that_is_stable(key):
    activations, (rank1, rank2), single, double = golden_case(key)
    (row,) = at_ranks(activations, [rank1], [rank2])
    found = row.values
    cka, pwcca, procrustes = single
    assert found["cka"] == pytest.approx(cka, abs=5e-6) and found["procrustes"] == pytest.approx(procrustes, abs=5e-6)
    if double is not None:
        assert found["cka"] == pytest.approx(double[0], abs=1e-12)
        assert found["procrustes"] == pytest.approx(double[2], abs=1e-12)
    widths = [as_rows(low_rank_approx(x, rank)).shape[1] for x, rank in zip(activations, (rank1, rank2), strict=True)]
    effective = [min(rank or width, width) for rank, width in zip((rank1, rank2), widths, strict=True)]
    if effective[0] <= effective[1]:  # otherwise the public code's depends on the basis of a null space
        if effective == widths and "fewer" not in key:
            assert found["pwcca"] == pytest.approx(pwcca, abs=1e-5)
        if f"{key}/pwcca_eigencutoff_64" in numbers("metrics"):
            cut = float(numbers("metrics")[f"{key}/pwcca_eigencutoff_64"])
            assert found["pwcca"] == pytest.approx(cut, abs=1e-11)
    if effective[0] <= effective[1]:
        assert found["pwcca"] == pytest.approx(found["pwcca_morcos"], abs=1e-12)
    else:
        assert found["pwcca"] > found["pwcca_morcos"]


@pytest.mark.parametrize("n", [20, 1000])
def test_number_of_samples_of_the_public_code(n):
    activations = [tensor("metrics", f"conv_same/act{side}")[:n] for side in (1, 2)]
    cka, pwcca, procrustes = numbers("metrics")[f"conv_same/n_samples={n}/cka_pwcca_procrustes"]
    found = compare(*activations, metrics=["procrustes", "cka", "pwcca"])
    assert list(found) == ["procrustes", "cka", "pwcca"]
    assert found == pytest.approx({"cka": cka, "pwcca": pwcca, "procrustes": procrustes}, abs=1e-5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Activations off centre with few large principal components, as networks have them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    width = shape[1] if len(shape) == 4 else shape[-1]
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) / torch.arange(1, width + 1)
    return torch.einsum("nc...,cd->nd...", x, mixing) + 1 if len(shape) == 4 else x @ mixing + 1


SHAPES = {
    "equal maps": ((30, 6, 3, 3), (30, 6, 3, 3), "positions"),
    "maps of other sizes": ((30, 6, 3, 3), (30, 9, 2, 2), "average pool"),
    "maps of other widths": ((30, 6, 3, 3), (30, 9, 3, 3), "average pool"),
    "equal tokens": ((30, 5, 6), (30, 5, 6), "tokens"),
    "tokens of other widths": ((30, 5, 6), (30, 5, 9), "tokens"),
    "other token counts": ((30, 5, 6), (30, 4, 6), "token mean"),
    "maps and tokens": ((30, 6, 3, 3), (30, 5, 9), "average pool / token mean"),
    "tokens and maps": ((30, 9, 6), (30, 6, 3, 3), "token mean / average pool"),
    "vectors": ((30, 6), (30, 9), "samples"),
    "maps and vectors": ((30, 6, 3, 3), (30, 9), "average pool / samples"),
    "fewer images than features": ((5, 9, 2, 2), (5, 8, 2, 2), "average pool"),
}


def aligned(x: torch.Tensor, *, by_position: bool) -> torch.Tensor:
    if by_position:
        return as_rows(x)
    return x.mean((2, 3)) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x


@pytest.mark.parametrize("name", SHAPES)
def test_all_ranks_equal_one_at_a_time(name):
    """The closed forms against the straightforward way: truncate all activations, align them, measure."""
    shape1, shape2, said = SHAPES[name]
    activations = random(*shape1), random(*shape2, seed=1)
    by_position = said in ("positions", "tokens", "samples")
    ranks = [1000, 5, 3, 1, None]
    rows = at_ranks(activations, ranks, ranks)
    assert [(row.rank1, row.rank2) for row in rows] == [(rank1, rank2) for rank1 in ranks for rank2 in ranks]
    for row in rows:
        x, y = (low_rank_approx(x, rank) for x, rank in zip(activations, (row.rank1, row.rank2), strict=True))
        samples = [aligned(z, by_position=by_position) for z in (x, y)]
        assert row.alignment == said
        assert row.values["cka"] == pytest.approx(linear_cka(x, y), abs=1e-10)
        assert row.values["procrustes"] == pytest.approx(procrustes_distance(*samples), abs=1e-10)
        assert row.values["pwcca"] == pytest.approx(pwcca_distance(*samples), abs=1e-8)
        assert row.values == pytest.approx(compare(x, y), abs=1e-8)


@pytest.mark.parametrize("name", SHAPES)
def test_alignment_names(name):
    shape1, shape2, said = SHAPES[name]
    assert alignment(shape1[1:], shape2[1:])[0] == said


@pytest.mark.parametrize("name", SHAPES)
def test_order_and_batches_of_images_do_not_count(name):
    shape1, shape2, _ = SHAPES[name]
    activations = random(*shape1), random(*shape2, seed=1)
    rows = at_ranks(activations, [4, None], [2, None])
    order = torch.randperm(shape1[0], generator=torch.Generator().manual_seed(5))
    others = at_ranks([x[order] for x in activations], [4, None], [2, None], batch_size=30)
    for row, other in zip(rows, others, strict=True):
        assert row.values == pytest.approx(other.values, abs=1e-9)


def test_a_large_mean_costs_no_digits():
    x, y = random(30, 6, 3, 3), random(30, 6, 3, 3, seed=1)
    assert compare(x + 1e4, y - 1e4) == pytest.approx(compare(x, y), abs=1e-8)


def test_small_perturbations_hardly_count():
    x, y = random(40, 8, 3, 3), random(40, 8, 3, 3, seed=1)
    noise = torch.Generator().manual_seed(2)
    noisy = [z * (1 + 1e-6 * torch.randn(z.shape, generator=noise, dtype=z.dtype)) for z in (x, y)]
    for row, other in zip(at_ranks((x, y), [8, 4], [8, 4]), at_ranks(noisy, [8, 4], [8, 4]), strict=True):
        assert row.values == pytest.approx(other.values, abs=1e-4)


def test_many_layers_equal_single_pairs():
    first = {"a": random(20, 6, 3, 3), "b": random(20, 5, 7), "c": random(20, 4)}
    second = {"d": random(20, 6, 3, 3, seed=1), "e": random(20, 5, 4, seed=2)}
    comparison = Comparison(first, second, n_images=20)
    for start in range(0, 20, 8):
        batch = slice(start, start + 8)
        comparison.add({k: v[batch] for k, v in first.items()}, {k: v[batch] for k, v in second.items()})
    pairs = list(comparison.rows([3, None], [2]))
    assert [(rows[0].layer1, rows[0].layer2) for rows in pairs] == [(one, two) for one in first for two in second]
    for rows in pairs:
        alone = at_ranks((first[rows[0].layer1], second[rows[0].layer2]), [3, None], [2])
        for row, other in zip(rows, alone, strict=True):
            assert row.values == pytest.approx(other.values, abs=1e-12)


def test_one_network_keeps_each_layer_once():
    layers = {"a": random(20, 6, 3, 3), "b": random(20, 6, 3, 3, seed=1), "c": random(20, 4)}
    comparison = Comparison(["a", "b"], ["b", "c"], n_images=20, one_network=True)
    comparison.add(layers, layers)
    assert comparison.layers1["b"] is comparison.layers2["b"]
    found = {(rows[0].layer1, rows[0].layer2): rows for rows in comparison.rows([4, 2], [None, 3])}
    for (one, two), rows in found.items():
        alone = at_ranks((layers[one], layers[two]), [4, 2], [None, 3])
        for row, other in zip(rows, alone, strict=True):
            assert row.values == pytest.approx(other.values, abs=1e-12)


def test_takes_arrays_whole_numbers_and_single_precision():
    x, y = random(30, 5, 6), random(30, 5, 6, seed=1)
    expected = compare(x, y)
    assert list(expected) == list(SIMILARITIES)
    assert compare(x.numpy(), y.numpy()) == expected
    assert compare(x.float().numpy(), y.float()) == pytest.approx(expected, abs=1e-5)
    rounded = (10 * x).round()
    assert compare(rounded.long(), y) == pytest.approx(compare(rounded, y), abs=1e-12)


def test_every_measure_is_a_method_of_a_pair():
    assert all(callable(getattr(LayerPair, name)) for name in SIMILARITIES)


def test_only_cka_needs_the_activations():
    layer = Layer("it", 30, keep_activations=False)
    layer.add(random(30, 6, 3, 3))
    assert not hasattr(layer, "activations")
    (row,) = at_ranks((random(30, 6, 3, 3), random(30, 6, 3, 3, seed=1)), [3], [3], metrics=["pwcca"])
    assert list(row.values) == ["pwcca"]


def test_measures_without_a_value_are_nan_and_say_why():
    x, same_for_all = random(20, 6, 3, 3), random(1, 6, 3, 3, seed=1).expand(20, -1, -1, -1)
    comparison = Comparison(["a"], ["constant", "same", "broken"], n_images=20)
    constant, broken = torch.full_like(x, 0.1), x.clone()
    broken[3, 2, 1, 0] = math.nan
    comparison.add({"a": x}, {"constant": constant, "same": same_for_all, "broken": broken})
    values = {rows[0].layer2: rows[0].values for rows in comparison.rows()}
    assert all(math.isnan(value) for name in ("constant", "broken") for value in values[name].values())
    assert math.isnan(values["same"]["cka"]) and values["same"]["procrustes"] > 0  # its positions do differ
    said = {reason: sorted(metrics) for reason, metrics in comparison.undefined.items()}
    everything = sorted(SIMILARITIES)
    assert said["broken of model 2 has values that are not finite"] == everything
    assert said["constant of model 2 is constant over the samples"] == [m for m in everything if m != "cka"]
    assert said["same of model 2 is the same for all images"] == ["cka"]
    with pytest.raises(Undefined, match="no cka: it of model 2 is the same for all images"):
        compare(x, constant, metrics=["cka"])


def test_counts_pairs_with_too_few_images():
    few = Comparison(["a"], ["b", "c"], n_images=5)
    few.add({"a": random(5, 6, 3, 3)}, {"b": random(5, 8, 2, 2), "c": random(5, 3)})
    rows = {rows[0].layer2: rows[0].values for rows in few.rows()}
    assert few.n_saturated == 1
    assert rows["b"]["pwcca"] == pytest.approx(0, abs=1e-9) and rows["c"]["pwcca"] > 0.01


def test_errors():
    x = random(20, 6)
    with pytest.raises(UserError, match="unknown measure 'cca'; did you mean pwcca"):
        compare(x, x, metrics=["cca"])
    with pytest.raises(ValueError, match=r"shapes \(20, 6\) and \(19, 6\)"):
        compare(x, x[1:])
    with pytest.raises(ValueError, match="of at least 2"):
        compare(np.zeros(20), np.zeros(20))
