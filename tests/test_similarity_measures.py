"""Measures of similarity: invariances, limits, oracles, the public code's values; comparisons of many layers and
ranks; permutations of images; what is reported."""

import itertools
import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.stats
import torch
from scipy.stats import kstest
from sklearn.neighbors import NearestNeighbors

from src.core.activations import as_rows
from src.core.cache import Cache
from src.core.choices.similarity import MEASURES
from src.core.errors import UserError
from src.core.values import ALL_IMAGES, LARGEST, WITHIN_CLASSES, ComparedLayers, Null, Similarity
from src.figures import similarities
from src.low_rank import low_rank_approx
from src.results.similarities import measured_in, record_of, value_columns
from src.similarity import (
    Undefined,
    compare,
    debiased_cka,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    pwcca_distance,
)
from src.similarity.comparison import LayerComparison
from src.similarity.grams import Grams, gram_matrices
from src.similarity.measures import cka_debiased, load_measures
from src.similarity.nulls import null_of, permuted_orders
from src.similarity.sides import Side, take_statistics
from tests.commands import ROOT, panels_of, says
from tests.comparisons import compared, nulls_of, values_of
from tests.goldens import numbers, random, tensor
from tests.result_rows import similarity_row

OF_ARRAYS = [linear_cka, pwcca_distance, procrustes_distance]


@pytest.fixture
def pair(rng):
    """Two correlated representations of 50 samples, off centre, with 7 and 9 features."""
    common = rng.normal(size=(50, 6))
    return [
        common @ rng.normal(size=(6, width)) + rng.normal(size=(50, width)) + 3 for width in (7, 9)
    ]


def rotation(rng, size: int) -> np.ndarray:
    return scipy.stats.ortho_group.rvs(size, random_state=rng)


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def basis(x: np.ndarray) -> np.ndarray:
    return scipy.linalg.orth(centred(x), rcond=1e-5)


MAPS = {
    "permutation": lambda z, rng: rng.permutation(z, axis=1),
    "rotation": lambda z, rng: z @ rotation(rng, z.shape[1]),
    "scale": lambda z, rng: 3 * z,
    "shift": lambda z, rng: z + 5 * rng.normal(size=z.shape[1]),
    "affine": lambda z, rng: z @ rng.normal(size=(z.shape[1], z.shape[1])) + 1,
}
METRICS = {
    "arccos(v)": lambda v: math.acos(min(v, 1)),
    "sqrt(v)": math.sqrt,
    "1 - v": lambda v: 1 - v,
}


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_is_what_its_row_declares(rng, pair, name):
    def measure(x, y) -> float:
        return compare(x, y, [name])[name]

    row = MEASURES[name]
    value = measure(*pair)
    for title, function in MAPS.items():
        values = [
            measure(function(pair[0], rng), pair[1]),
            measure(pair[0], function(pair[1], rng)),
        ]
        is_invariant = values == pytest.approx([value, value], abs=1e-9)
        assert is_invariant == (title in row.invariant_to), title
    assert (measure(*reversed(pair)) == pytest.approx(value, abs=1e-9)) == row.is_symmetric
    assert measure(pair[0], pair[0]) == pytest.approx(row.equal, abs=1e-9)
    if not row.metric:
        return
    assert row.is_symmetric
    for share in rng.uniform(size=20):  # a representation between two others, and those
        x, z = rng.normal(size=(2, 50, 6))
        y = share * x + (1 - share) * z
        values = [measure(*two) for two in ((x, y), (y, z), (x, z))]
        first, second, both = map(METRICS[row.metric], values)
        assert both <= first + second + 1e-9


def test_methods_md_has_the_declarations():
    lines = (ROOT / "misc" / "docs" / "methods.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| `")]
    by_name = {row[1].strip("`"): row[3:6] for row in cells if row[1].strip("`") in MEASURES}
    for name, row in MEASURES.items():
        is_symmetric = {True: "yes", False: "no"}[row.is_symmetric]
        assert by_name[name] == [", ".join(row.invariant_to), is_symmetric, row.metric]


def test_the_weights_of_pwcca_are_those_of_the_first(rng, pair):
    x, y = pair
    value = pwcca_distance(x, y)
    assert pwcca_distance(x, MAPS["affine"](y, rng)) == pytest.approx(value, abs=1e-10)
    assert pwcca_distance(x, 3 * x @ rotation(rng, 7) + 1) == pytest.approx(0, abs=1e-12)


def test_values_by_hand():
    # x has two orthogonal features of norms 2 and 1 beside each other, y the first of them only.
    x, y = (
        np.array([[1.0, 0.5], [1, -0.5], [-1, 0.5], [-1, -0.5]]),
        np.array([[1.0], [1], [-1], [-1]]),
    )
    assert linear_cka(x, y) == pytest.approx(4 / math.hypot(4, 1))
    assert procrustes_distance(x, y) == pytest.approx(2 - 2 * 2 / math.sqrt(5))
    assert pwcca_distance(x, y) == pytest.approx(1 - 2 / 3)  # weights 2 and 1, correlations 1 and 0
    assert pwcca_distance(y, x) == pytest.approx(0)
    uncorrelated = [[1.0], [1], [-1], [-1]], [[1.0], [-1], [1], [-1]]
    assert [measure(*uncorrelated) for measure in OF_ARRAYS] == pytest.approx([0, 1, 2], abs=1e-12)
    for measure in (linear_cka, procrustes_distance):
        assert measure(x, y) == pytest.approx(measure(y, x))


def test_procrustes_equals_scipy(pair):
    x, y = (centred(z) / np.linalg.norm(centred(z)) for z in pair)
    x = np.pad(x, [(0, 0), (0, 2)])
    best, _ = scipy.linalg.orthogonal_procrustes(y, x)
    assert procrustes_distance(*pair) == pytest.approx(np.linalg.norm(x - y @ best) ** 2, abs=1e-12)


def test_directions_without_a_partner_are_principal_axes(pair):
    """With more features than the other has, their weights are those of the principal axes of what
    is left."""
    y, x = pair[0][:, :4], pair[1]
    left, found, _ = np.linalg.svd(basis(x).T @ basis(y), full_matrices=False)
    shared = basis(x) @ left
    _, deviations, axes = np.linalg.svd(centred(x) - shared @ shared.T @ centred(x))
    weights = np.abs(shared.T @ centred(x)).sum(1)
    alone = np.abs(deviations[:5, None] * axes[:5]).sum()
    expected = 1 - weights @ found / (weights.sum() + alone)
    assert pwcca_distance(x, y) == pytest.approx(expected, abs=1e-12)


def test_equal_correlations_take_the_principal_axes(rng):
    """y = x in four of six directions, so that all of their correlations are 1 and any mixture of
    them would do."""
    x, noise = rng.normal(size=(60, 6)) * [6, 5, 4, 3, 2, 1], rng.normal(size=(60, 2))
    y = np.concatenate([x[:, :4] @ rng.normal(size=(4, 4)), noise], axis=1)
    value = pwcca_distance(x, y)
    inside, outside = basis(x[:, :4]), []
    _, deviations, axes = np.linalg.svd(inside.T @ centred(x), full_matrices=False)
    shared = np.abs(deviations[:, None] * axes).sum()
    rest = centred(x) - inside @ inside.T @ centred(x)
    left, found, _ = np.linalg.svd(basis(rest).T @ basis(y), full_matrices=False)
    outside = np.abs((basis(rest) @ left).T @ centred(x)).sum(1)
    expected = 1 - (shared + outside[:2] @ found[:2]) / (shared + outside.sum())
    assert value == pytest.approx(expected, abs=1e-9)
    order = rng.permutation(60)
    assert pwcca_distance(x[order], y[order]) == pytest.approx(value, abs=1e-9)


# Gram matrices


def layer(
    n: int, n_positions: int, n_channels: int, *, seed: int = 0, mean: float = 3
) -> torch.Tensor:
    """Activations (n, positions, C) in double precision, off centre, with few large principal
    components."""
    x = random(n, n_positions, n_channels, seed=seed) / torch.arange(1, n_channels + 1)
    return x + mean * random(n_positions, n_channels, seed=seed + 2).sigmoid()


def centred_gram(x: torch.Tensor) -> torch.Tensor:
    """The matrix (n, n) of activations (n, positions, C)."""
    return gram_matrices(x).centred[0]


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_products_in_single_precision_cost_few_digits(mean):
    """More features than a block has, and more images than a block of the triangle; whatever autocast says."""
    x, y = layer(150, 100, 64, mean=mean), layer(150, 50, 64, seed=1, mean=mean)
    exact = x.float().double().flatten(1) - x.float().double().flatten(1).mean(0)
    gram = centred_gram(x.float())
    assert (gram - exact @ exact.T).norm() / (exact @ exact.T).norm() < 1e-6
    torch.testing.assert_close(gram, gram.T, rtol=0, atol=1e-9)
    found = torch.cosine_similarity(gram.flatten(), centred_gram(y.float()).flatten(), dim=0)
    assert float(found) == pytest.approx(linear_cka(x, y), abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(centred_gram(x.float()), gram)


def hsic_by_4_tuples(k: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimator as a U-statistic: the mean over all ordered 4-tuples of different
    samples."""
    tuples = itertools.permutations(range(len(k)), 4)
    values = [k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in tuples]
    return float(np.mean(values))


def test_debiased_cka_equals_the_mean_over_4_tuples(rng):
    x, y = rng.normal(size=(8, 5)) + 2, rng.normal(size=(8, 3))
    k, other = x @ x.T, y @ y.T
    expected = hsic_by_4_tuples(k, other) / np.sqrt(
        hsic_by_4_tuples(k, k) * hsic_by_4_tuples(other, other)
    )
    assert debiased_cka(x, y) == pytest.approx(expected, abs=1e-12)
    matrices = [cka_debiased(Grams(torch.tensor(z)[None], torch.zeros(1, 8))) for z in (k, other)]
    inner = (matrices[0] * matrices[1]).sum() / (8 * 5)
    assert float(inner) == pytest.approx(hsic_by_4_tuples(k, other), abs=1e-10)


@pytest.mark.parametrize("k", [1, 10, 39])
def test_mutual_knn_equals_scikit_learn(rng, k):
    common = rng.normal(size=(40, 6))
    pair = [
        common @ rng.normal(size=(6, width)) + rng.normal(size=(40, width)) + 1 for width in (7, 9)
    ]
    sets = [
        NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False)
        for z in pair
    ]
    expected = np.mean([len(set(one) & set(other)) / k for one, other in zip(*sets, strict=True)])
    assert mutual_knn(*pair, k=k) == pytest.approx(expected, abs=1e-12)
    assert (expected == 1) == (k == 39)
    moved = [z + 5 for z in pair]  # neighbours are of what is not centred
    assert (mutual_knn(*moved, k=k) == pytest.approx(expected)) == (k == 39)


@pytest.mark.parametrize(
    ("x", "kind", "reason"),
    [
        (np.full((50, 3), 0.1), Undefined, "the first representation is constant"),
        (np.full((50, 3), np.nan), Undefined, "values that are not finite"),
        (np.zeros(50), ValueError, r"shape \(50,\)"),
        (np.eye(50) * 1j, ValueError, "complex128; give real numbers"),
        (None, ValueError, "the first representation is no array of numbers"),
        (np.zeros((50, 0)), ValueError, r"shape \(50, 0\)"),
        (np.eye(49), ValueError, r"shapes \(49, 49\) and \(50, 9\)"),
    ],
)
def test_what_has_no_value_is_an_error(pair, x, kind, reason):
    with pytest.raises(kind, match=reason):
        procrustes_distance(x, pair[1])
    with pytest.raises(Undefined, match="at least 11 inputs, not 10"):
        mutual_knn(pair[0][:10], pair[1][:10])


GOLDENS = sorted(
    key.removesuffix("/cka_pwcca_procrustes")
    for key in numbers("metrics")
    if key.endswith("/cka_pwcca_procrustes") and "n_samples" not in key
)


def golden_case(key: str):
    """Activations, ranks, and their [CKA, PWCCA, Procrustes] in single and, where they are known,
    double precision."""
    case, _, ranks = key.partition("/")
    activations = [tensor("metrics", f"{case}/act{side}") for side in (1, 2)]
    if ranks == "swapped":
        activations, ranks = activations[::-1], "r1=None,r2=None"
    ranks = [None if text.endswith("None") else int(text[3:]) for text in ranks.split(",")]
    single = numbers("metrics")[f"{key}/cka_pwcca_procrustes"]
    return activations, ranks, single, numbers("metrics").get(f"{key}/cka_pwcca_procrustes_64")


def at_ranks(activations, ranks1, ranks2, **options):
    """The rows of two activations."""
    first, second = activations
    (rows,) = compared(
        {"a": first}, {"b": second}, ranks1=ranks1, ranks2=ranks2, **options
    ).results()
    return rows


@pytest.mark.parametrize("key", GOLDENS)
def test_equals_the_public_code_where_that_is_stable(key):
    activations, (rank1, rank2), single, double = golden_case(key)
    (row,) = at_ranks(activations, [rank1], [rank2])
    found = values_of(row)
    cka, pwcca, procrustes = single
    assert found["cka"] == pytest.approx(cka, abs=5e-6) and found["procrustes"] == pytest.approx(
        procrustes, abs=5e-6
    )
    if double is not None:
        (exact,) = at_ranks([x.double() for x in activations], [rank1], [rank2])
        assert values_of(exact)["cka"] == pytest.approx(double[0], abs=1e-12)
        assert found["cka"] == pytest.approx(double[0], abs=1e-6)
        assert found["procrustes"] == pytest.approx(double[2], abs=1e-12)
    widths = [
        as_rows(low_rank_approx(x, rank)).shape[1]
        for x, rank in zip(activations, (rank1, rank2), strict=True)
    ]
    effective = [
        min(rank or width, width) for rank, width in zip((rank1, rank2), widths, strict=True)
    ]
    if effective[0] > effective[1]:  # the public code's depends on the basis of a null space
        return
    if effective == widths and "fewer" not in key:
        assert found["pwcca"] == pytest.approx(pwcca, abs=1e-5)
    if f"{key}/pwcca_eigencutoff_64" in numbers("metrics"):
        cut = float(numbers("metrics")[f"{key}/pwcca_eigencutoff_64"])
        assert found["pwcca"] == pytest.approx(cut, abs=1e-11)


def mixed(*shape: int, seed: int = 0) -> torch.Tensor:
    """Activations off centre with few large principal components, as networks have them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    width = shape[1] if len(shape) == 4 else shape[-1]
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) / torch.arange(
        1, width + 1
    )
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
    """The closed forms against the straightforward way: truncate all activations, align them,
    measure."""
    shape1, shape2, said = SHAPES[name]
    activations = mixed(*shape1), mixed(*shape2, seed=1)
    by_position = said in ("positions", "tokens", "samples")
    ranks1, ranks2 = [1000, 5, 1, None], [4, 3, None]
    rows = at_ranks(activations, ranks1, ranks2, metrics=list(MEASURES))
    assert [(row.rank1, row.rank2) for row in rows] == [
        (rank1, rank2) for rank1 in ranks1 for rank2 in ranks2
    ]
    for row in rows:
        x, y = (
            low_rank_approx(x, rank)
            for x, rank in zip(activations, (row.rank1, row.rank2), strict=True)
        )
        samples = [aligned(z, by_position=by_position) for z in (x, y)]
        assert row.alignment == said
        values = values_of(row)
        assert values["cka"] == pytest.approx(linear_cka(x, y), abs=1e-10)
        assert values["cka_debiased"] == pytest.approx(debiased_cka(x, y), abs=1e-10)
        if len(x) > 10:
            assert values["mutual_knn"] == pytest.approx(mutual_knn(x, y), abs=1e-10)
        else:
            assert math.isnan(values["mutual_knn"])
        assert values["procrustes"] == pytest.approx(procrustes_distance(*samples), abs=1e-10)
        assert values["pwcca"] == pytest.approx(pwcca_distance(*samples), abs=1e-8)
        for metric, value in compare(x, y).items():
            assert values[metric] == pytest.approx(value, abs=1e-8)
    pooled = compare(*activations, ["procrustes", "pwcca"], alignment="pool")
    samples = [aligned(z, by_position=False) for z in activations]
    assert pooled["procrustes"] == pytest.approx(procrustes_distance(*samples), abs=1e-10)
    assert pooled["pwcca"] == pytest.approx(pwcca_distance(*samples), abs=1e-8)


LAYERS = {
    "a": mixed(20, 6, 3, 3),
    "b": mixed(20, 6, 3, 3, seed=1),
    "c": mixed(20, 5, 7),
    "d": mixed(20, 4),
}


class Counted:
    """A network of given activations, whose images are places among them. All of these networks
    count the images they have seen."""

    seen = 0

    def __init__(self, values):
        self.values = values

    def activations(self, images, names, *, keep=False):
        Counted.seen += len(images)
        return {name: self.values[name][images] for name in names}


def taken(*sides: Side, **options) -> LayerComparison:
    """The comparison of two sides; `Counted.seen` tells how many images both have seen."""
    Counted.seen = 0
    batches = ((images, None) for images in torch.arange(20).split(8))
    return LayerComparison(
        take_statistics(*sides, batches, n_images=20, metrics=load_measures(MEASURES), **options)
    )


def test_many_layers_and_ranks_of_one_network_equal_single_pairs_in_one_pass():
    network = Counted(LAYERS)
    comparison = taken(Side(network, ["a", "b"], [4, 2]), Side(network, ["b", "c"], [None, 3]))
    pairs = list(comparison.results())
    assert Counted.seen == 20
    assert [(rows[0].layer1, rows[0].layer2) for rows in pairs] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "b"),
        ("b", "c"),
    ]
    for rows in pairs:
        activations = LAYERS[rows[0].layer1], LAYERS[rows[0].layer2]
        alone = at_ranks(activations, [4, 2], [None, 3], metrics=list(MEASURES))
        for row, other in zip(rows, alone, strict=True):
            assert values_of(row) == pytest.approx(values_of(other), abs=1e-12)


@pytest.mark.parametrize(
    ("alignment", "max_bytes", "n_passes"), [("pool", 10**9, 3), ("auto", 10**9, 6), ("pool", 0, 6)]
)
def test_kept_features_spare_passes_and_change_nothing(alignment, max_bytes, n_passes):
    """Three networks, three pairs; where positions are samples, activations are needed again."""
    layers = [
        {name: x + 0.1 * mixed(*x.shape, seed=seed) for name, x in LAYERS.items()}
        for seed in range(3)
    ]
    cache, n_seen = Cache(max_bytes), 0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        sides = [Side(Counted(layers[k]), list(LAYERS), key=k) for k in (i, j)]
        found = taken(*sides, alignment=alignment, cache=cache).results()
        n_seen += Counted.seen
        expected = compared(
            layers[i], layers[j], alignment=alignment, metrics=list(MEASURES)
        ).results()
        for (row,), (other,) in zip(found, expected, strict=True):
            assert values_of(row) == pytest.approx(values_of(other), abs=1e-12)
    assert n_seen == 20 * n_passes


def test_networks_without_a_key_are_not_taken_for_each_other():
    layers = [{"a": mixed(20, 6, 3, 3, seed=seed)} for seed in range(4)]
    cache = Cache(10**9)
    for alignment, (i, j) in itertools.product(("pool", "auto"), ((0, 1), (2, 3), (1, 3))):
        sides = [Side(Counted(layers[k]), ["a"]) for k in (i, j)]
        ((row,),) = taken(*sides, alignment=alignment, cache=cache).results()
        expected = compared(layers[i], layers[j], alignment=alignment, metrics=list(MEASURES))
        ((other,),) = expected.results()
        assert values_of(row) == pytest.approx(values_of(other), abs=1e-12)
    assert cache.n_bytes == 0


def test_large_means_arrays_single_precision_and_integer_froms():
    x, y = mixed(30, 5, 6), mixed(30, 5, 6, seed=1)
    expected = compare(x, y)
    assert list(expected) == ["cka", "pwcca", "procrustes"]
    assert compare(x + 1e4, y - 1e4) == pytest.approx(expected, abs=1e-8)
    assert compare(x.float().numpy(), y.float()) == pytest.approx(expected, abs=1e-5)
    rounded = (10 * x).round()
    assert compare(rounded.long(), y) == pytest.approx(compare(rounded, y), abs=1e-12)


def test_measures_without_a_value_are_nan_and_say_why():
    x, same_for_all = mixed(20, 6, 3, 3), mixed(1, 6, 3, 3, seed=1).expand(20, -1, -1, -1)
    constant, broken = torch.full_like(x, 0.1), x.clone()
    broken[3, 2, 1, 0] = math.nan
    others = {"constant": constant, "same": same_for_all, "broken": broken}
    comparison = compared({"a": x}, others, metrics=list(MEASURES))
    values = {rows[0].layer2: values_of(rows[0]) for rows in comparison.results()}
    assert all(map(math.isnan, (*values["constant"].values(), *values["broken"].values())))
    assert (
        math.isnan(values["same"]["cka"]) and values["same"]["procrustes"] > 0
    )  # positions differ
    of_grams = {"cka", "cka_debiased", "mutual_knn"}
    for reason, metrics in {
        ("broken of model 2", "not finite"): set(MEASURES),
        ("constant of model 2", "constant over"): set(MEASURES) - of_grams,
        ("same of model 2", "same for all inputs"): of_grams,
    }.items():
        (found,) = (set(of) for text, of in comparison.undefined.items() if says(text, *reason))
        assert found == metrics
    assert says("\n".join(comparison.warnings()), "mutual_knn nan: ", "same of model 2")
    with pytest.raises(Undefined, match="no cka: the second .* is the same for all inputs"):
        compare(x, constant, metrics=["cka"])
    with pytest.raises(UserError, match="unknown alignment 'pol'; did you mean pool"):
        compare(torch.eye(20), torch.eye(20), alignment="pol")
    with pytest.raises(ValueError, match=r"shapes \(20, 6, 3, 3\) and \(19, 6, 3, 3\)"):
        compare(x, x[1:])


def rows_of(layers1, layers2, ranks1, ranks2, values=None) -> pd.DataFrame:
    """Rows with values that tell them apart, or with these values."""
    layers = [
        dict(zip(("layer1", "layer2"), pair, strict=True)) for pair in product(layers1, layers2)
    ]
    ranks = [dict(zip(("rank1", "rank2"), pair, strict=True)) for pair in product(ranks1, ranks2)]
    records = []
    for of_layers, of_ranks in product(layers, ranks):
        own = {"cka": float(len(records)), "pwcca": math.nan}
        records.append(similarity_row(**of_layers, **of_ranks, **(values or own)))
    return pd.DataFrame.from_records(records)


def draw(path, rows) -> None:
    similarities.draw(path, rows, measured_in(rows))


@pytest.mark.parametrize(
    ("of", "rows", "columns", "values", "labels"),
    [
        (("ab", "cde", [None], [None]), ["a", "b"], ["c", "d", "e"], [[0, 1, 2], [3, 4, 5]],
         ("layer of network 1", "layer of network 2")),
        (("a", "c", [None, 4], [None, 3]), ["full rank", "rank 4"], ["full rank", "rank 3"], [[0, 1], [2, 3]],
         ("a of network 1", "c of network 2")),
        (("ab", "c", [8, 4], [6, 3]), ["a", "b"], ["c"], [[0], [4]],
         ("layer of network 1", "layer of network 2")),
    ],
    ids=["layers", "full and lower ranks of a pair", "many layers at many ranks: the highest"],
)  # fmt: skip
def test_maps(of, rows, columns, values, labels, drawn_figures, tmp_path):
    draw(tmp_path / "x.png", rows_of(*of))
    panels = panels_of(drawn_figures["x.png"])
    cka = panels["linear CKA"]
    assert cka.images[0].get_array().tolist() == values
    assert [text.get_text() for text in cka.get_yticklabels()] == rows
    assert [text.get_text() for text in cka.get_xticklabels()] == columns
    figure = drawn_figures["x.png"]
    assert (figure.get_supylabel(), cka.get_xlabel()) == labels
    assert panels["PWCCA distance"].images[0].get_array().mask.all()  # NaN


def test_ranks_of_one_side(drawn_figures, tmp_path):
    """A distance rises with similarity, and the number of the full rank is not in the rows."""
    draw(tmp_path / "x.png", rows_of("a", "c", [5], [6, 3]))
    (axes,) = drawn_figures["x.png"].axes
    assert axes.lines[0].get_xydata().tolist() == [[3, 1], [6, 0]]
    assert says(axes.get_xlabel(), "a and c, the other at rank 5")
    values = {"procrustes": 0.5}
    draw(tmp_path / "x.png", rows_of("ab", "c", [None, 6], [None], values))
    panels = drawn_figures["x.png"].axes
    assert [says(panel.get_xlabel(), "and c") for panel in panels] == [True, True]
    for panel in panels:
        assert panel.lines[0].get_xydata().tolist() == [[6, 0.75]]
        assert says(panel.lines[0].get_label(), "1 − ", "Procrustes", "/ 2")


def test_nulls_have_panels_of_their_own(drawn_figures, tmp_path):
    values = {"cka": 0.5, "pwcca": 0.5}
    for ending, calibrated in (("", 0.25), ("_within", 0.125)):
        null = Null(0.05, 0.4, calibrated)
        values |= {f"cka_{part}{ending}": number for part, number in null._asdict().items()}
    draw(tmp_path / "x.png", rows_of("a", "c", [None], [None], values))
    panels = panels_of(drawn_figures["x.png"])
    drawn = {title: panel.images[0].get_array().item() for title, panel in panels.items()}
    assert list(drawn.values()) == [0.5, 0.25, 0.125, 0.5]
    plain, freely, within, pwcca = drawn
    assert (plain, pwcca) == ("linear CKA", "PWCCA distance")
    assert says(freely, plain, "calibrated") and "within classes" in within


def test_a_row_keeps_what_was_compared():
    nulls = {ALL_IMAGES: Null(0.05, 0.1, 0.2), WITHIN_CLASSES: Null(0.5, 0.3, 0.0)}
    back = {"pwcca": Similarity(0.5, {ALL_IMAGES: Null(0.25, 0.75, 0.125)})}
    values = {
        "cka": Similarity(0.5, nulls),
        "pwcca": Similarity(0.25),
        "own_distance": Similarity(2.0),
    }
    source = {
        "model1": "a.pt", "model2": "b.pt", "model1_type": "small_cnn", "model2_type": "small_cnn",
        "dataset": "digits", "n_samples": 10, "alignment_option": "auto", "n_permutations": 20, "seed": None,
    }  # fmt: skip
    row = record_of(ComparedLayers("x", "y", 4, None, "positions", values, back), source)
    columns = value_columns(row)
    assert columns[:4] == ["cka", "pwcca", "own_distance", "pwcca_reversed"]
    assert row["cka_null_95_within"] == 0.3
    assert row["pwcca_reversed_p_value"] == 0.25
    assert measured_in(row) == ["cka", "pwcca", "own_distance"] and len(columns) == 4 + 3 * 3


CALIBRATED = Path(__file__).parent / "data" / "numerics" / "calibrated_similarity.npz"
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
    data = np.load(CALIBRATED)
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


FEW_MAPS, WIDE_MAPS = (
    torch.rand(20, 5, 3, 3),
    torch.rand(20, 12, 3, 3),
)  # 45 features, or 5 of 180 positions
WIDE, NARROW, FEW = torch.rand(20, 12), torch.rand(20, 5), torch.rand(3, 30, 2, 2)


@pytest.mark.parametrize(
    ("x", "y", "metrics", "options", "biased"),
    [
        (FEW_MAPS, FEW_MAPS, ["cka"], {}, ["CKA is biased upwards", "more features", "(2 of 2)"]),
        (FEW_MAPS, FEW_MAPS, ["cka"], {"n_permutations": 20}, None),  # the null shows it
        (FEW_MAPS, FEW_MAPS, ["cka_debiased", "mutual_knn", "procrustes", "pwcca"], {}, None),
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
