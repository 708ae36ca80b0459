"""Activations of all shapes at all ranks: goldens, alignment, and equality with one comparison at a
time."""

import itertools
import math

import pytest
import torch

from src.core.activations import as_rows
from src.core.cache import Cache
from src.core.choices.similarity import MEASURES
from src.core.errors import UserError
from src.low_rank import low_rank_approx
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
from src.similarity.measures import load_measures
from src.similarity.sides import Side, take_statistics
from tests.commands import says
from tests.comparisons import compared, values_of
from tests.goldens import numbers, tensor

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


def random(*shape: int, seed: int = 0) -> torch.Tensor:
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
    activations = random(*shape1), random(*shape2, seed=1)
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
    "a": random(20, 6, 3, 3),
    "b": random(20, 6, 3, 3, seed=1),
    "c": random(20, 5, 7),
    "d": random(20, 4),
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
        {name: x + 0.1 * random(*x.shape, seed=seed) for name, x in LAYERS.items()}
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
    layers = [{"a": random(20, 6, 3, 3, seed=seed)} for seed in range(4)]
    cache = Cache(10**9)
    for alignment, (i, j) in itertools.product(("pool", "auto"), ((0, 1), (2, 3), (1, 3))):
        sides = [Side(Counted(layers[k]), ["a"]) for k in (i, j)]
        ((row,),) = taken(*sides, alignment=alignment, cache=cache).results()
        expected = compared(layers[i], layers[j], alignment=alignment, metrics=list(MEASURES))
        ((other,),) = expected.results()
        assert values_of(row) == pytest.approx(values_of(other), abs=1e-12)
    assert cache.n_bytes == 0


def test_large_means_arrays_single_precision_and_integer_froms():
    x, y = random(30, 5, 6), random(30, 5, 6, seed=1)
    expected = compare(x, y)
    assert list(expected) == ["cka", "pwcca", "procrustes"]
    assert compare(x + 1e4, y - 1e4) == pytest.approx(expected, abs=1e-8)
    assert compare(x.float().numpy(), y.float()) == pytest.approx(expected, abs=1e-5)
    rounded = (10 * x).round()
    assert compare(rounded.long(), y) == pytest.approx(compare(rounded, y), abs=1e-12)


def test_measures_without_a_value_are_nan_and_say_why():
    x, same_for_all = random(20, 6, 3, 3), random(1, 6, 3, 3, seed=1).expand(20, -1, -1, -1)
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
