"""Statistics over many networks: means, comparisons of groups, curves over depth and best matches, computed
from the frame of results.

A frame is that of `src.results.frame.read`. Means are over pairs of networks, of which each counts by
the mean over its pairs of layers; intervals of 95 % and p-values are over networks.

    frame = between_networks(read("results/pairs", networks="nets.csv"))
    means = network_means(frame, ["skill", "cka"])
    over_networks(means, ["method", "quantity", *GROUPS])
    group_tests(means)
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy  # loads a part of it at its first use

from src.core.choices.similarity import SIMILARITY, measure_of
from src.core.console import listed
from src.core.errors import UserError
from src.core.grouping import by_depth
from src.core.user_code import titles_in
from src.results.frame import (
    DEPTHS,
    GROUPS,
    LAYERS,
    NETWORKS,
    SIDES,
    TRAINING,
    TYPES,
    architectures,
    layers_of,
    measures_in,
)
from src.results.network_names import PAIRS, SAME_RUN, UNLISTED
from src.results.quantities import AUROC, QUANTITIES, SKILL, STITCHING, measured_by
from src.statistics.permutation_tests import END, FRONT, permutation_test
from src.statistics.resampling import Estimate, estimate, permuted_p
from src.verdict import INCONCLUSIVE, SIMILAR, VERDICTS

TIE = 1e-6  # relative depths, and distances of these, that are this near count as equal
SHARE = SIMILAR  # the quantity of many pairs of networks: the share of similar pairs
AT_MOST = "at most similar"  # the share that is similar or inconclusive
CORRESPONDING = "all corresponding layers of each pair of networks"
ALL_LAYERS = "all pairs of layers"  # which differ between pairs of networks
ONE_NETWORK = "one network at two epochs"
EXPERIMENT = ["method", "dataset"]
PAIR = [*NETWORKS, *GROUPS, *TYPES, *TRAINING]
STITCHED = ["accuracy", "accuracy_drop", "skill", "skill_at_end"]
SHARES = [*VERDICTS, AT_MOST]
MEASURED = [name for name, entry in measured_by(STITCHING, SKILL).items() if entry.shown_in]
MATCHED = ("accuracy", "skill")  # the quantities that stitches are matched by
UNLIKE = 0.05  # of the mean accuracies of groups, that a sentence names
MIN_STEPS = 3  # of relative depth
MAX_STEPS = 12
N_PERMUTATIONS = 9_999
LARGEST_RHO = 1 - 1e-9  # whose z is finite


def between_networks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of pairs of independent trained networks in the list; of measures of similarity only
    those at full rank."""
    is_listed = ~frame[GROUPS].isin([UNLISTED]).any(axis=1)
    return at_full_rank(frame[is_listed & (frame.kind == PAIRS)])


def at_full_rank(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame without the similarities of layers of reduced rank."""
    ranks = frame.reindex(columns=["front_rank", "end_rank"])
    return frame[ranks.isna().all(axis=1)]


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with front and end exchanged, in all columns that both have."""
    names = {}
    for name in frame.columns:
        side, _, rest = str(name).partition("_")
        other = f"{FRONT if side == END else END}_{rest}"
        if side in SIDES and other in frame:
            names[name] = other
    return frame.rename(columns=names)[list(frame.columns)]


def corresponding(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of corresponding layers.

    In networks of one type they are the layers of the same name. In other networks they are the layers
    of which each is the nearest to the other in relative depth.
    """
    kinds = architectures(frame)
    gap = (frame.front_relative_depth - frame.end_relative_depth).abs()
    is_nearest = pd.Series(True, index=frame.index)
    for layer in LAYERS:
        keys = [frame[name] for name in (*NETWORKS, layer)]
        is_nearest &= gap < gap.groupby(keys).transform("min") + TIE
    is_named_alike = frame.front_layer == frame.end_layer
    return frame[is_named_alike.where(kinds.front == kinds.end, is_nearest)]


def have_equal_layers(frame: pd.DataFrame) -> bool:
    """Return whether the networks of all types have the same layers at the same relative depths."""
    layers = layers_of(frame)
    depths = layers.pivot_table(
        index="layer", columns="architecture", values="relative_depth", dropna=False
    )
    spread = depths.max(axis=1, skipna=False) - depths.min(axis=1, skipna=False)
    return bool((spread < TIE).all())


def compared_layers(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows of the pairs of layers by which networks are compared, and a description of these pairs.

    Of networks of one architecture they are the pairs of equal names that every pair of networks has; of
    others all pairs of corresponding layers, if every pair of networks has such. If there are none, they
    are all pairs of layers that every pair of networks has; if there are none either, all.

    Args:
        frame: of one method.
    """
    n_pairs = frame.groupby(NETWORKS).ngroups
    if not have_equal_layers(frame):
        kept = corresponding(frame)
        if kept.groupby(NETWORKS).ngroups == n_pairs:
            return kept, CORRESPONDING
    n_networks = frame[[*LAYERS, *NETWORKS]].drop_duplicates().groupby(LAYERS).size()
    common = n_networks[n_networks == n_pairs].reset_index()[LAYERS]
    alike = common[common.front_layer == common.end_layer]
    chosen = common if alike.empty else alike
    if chosen.empty:
        return frame, ALL_LAYERS
    pairs = pd.MultiIndex.from_frame(chosen)
    text = "1 pair of layers" if len(pairs) == 1 else f"{len(pairs)} pairs of layers"
    if len(alike):
        text += " of the same name"
    return frame[pd.MultiIndex.from_frame(frame[LAYERS]).isin(pairs)], text


def values_of(
    frame: pd.DataFrame, quantities: Sequence[str], *, have_directions: bool = True
) -> pd.DataFrame:
    """Return a long-format frame with the columns `quantity` and `value`, without NaN.

    A symmetric measure counts once, from the network whose group and training comes first. Shares of
    verdicts are quantities with values 0 and 1: each of `VERDICTS`, and `AT_MOST`.

    Args:
        have_directions: of measures; False: all count as symmetric.
    """
    frame = _with_shares(frame)
    keys = [*EXPERIMENT, "kind", *PAIR, *LAYERS, *DEPTHS]
    chosen = [name for name in quantities if name in frame]
    long = frame.melt(keys, chosen, "quantity", "value").dropna(subset="value")
    is_measure = ~long.quantity.map(_is_of_stitches)
    long = long[is_measure == (long.method == SIMILARITY)].astype({"value": float})
    ends = [
        list(zip(long[f"{side}_group"], long[f"{side}_training"], strict=True)) for side in SIDES
    ]
    is_backward = [first > second for first, second in zip(*ends, strict=True)]
    without_direction = symmetric_measures(frame) if have_directions else measures_in(frame)
    is_moved = long.quantity.isin(without_direction) & np.array(is_backward, bool)
    return pd.concat([long[~is_moved], swapped(long[is_moved])]).sort_index(kind="stable")


def _is_of_stitches(quantity: str) -> bool:
    """Return whether a quantity is measured of stitches, rather than a measure of similarity."""
    return quantity in QUANTITIES or quantity in SHARES or quantity.startswith(AUROC)


def _with_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with an indicator column (0, 1) for each share of verdicts; NaN without a verdict."""
    shares = {name: (frame.verdict == name).astype(float) for name in VERDICTS}
    shares[AT_MOST] = frame.verdict.isin([SIMILAR, INCONCLUSIVE]).astype(float)
    return frame.assign(**pd.DataFrame(shares)[frame.verdict.notna()])


def symmetric_measures(frame: pd.DataFrame) -> list[str]:
    """Return the symmetric measures of similarity in a frame."""
    back = frame[frame.get("is_reversed", pd.Series(False, frame.index)).eq(True)]
    names = measures_in(frame)
    return [name for name in names if measure_of(name).is_symmetric and back[name].isna().all()]


def possible_values(quantity: str) -> tuple[float, float]:
    """Return the lowest and the highest possible value of a quantity; shares are in [0, 1]."""
    if quantity in SHARES:
        return 0, 1
    if quantity in QUANTITIES:
        return QUANTITIES[quantity].possible
    return -math.inf, math.inf


def network_means(frame: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Compute the mean over the compared layers for each quantity, method and ordered pair of networks.

    `compared_layers` chooses the layers of each method, which `layers` names; `n_layers` is their number
    with a value, and `pairs_of_layers` lists them with their relative depths.
    """
    tables = []
    for _, of_method in frame.groupby(EXPERIMENT, sort=False, dropna=False):
        rows, text = compared_layers(of_method)
        tables.append(values_of(rows, quantities).assign(layers=text))
    empty = frame.assign(quantity="", value=0.0, layers="")
    values = pd.concat(tables) if tables else empty[:0]
    values["pairs_of_layers"] = _titles_of_layers(values)
    keys = [*EXPERIMENT, "quantity", *PAIR, "layers"]
    groups = values.groupby(keys, sort=False, dropna=False)
    means = groups.agg(value=("value", "mean"), n_layers=("pairs_of_layers", "nunique"))
    by_depth = values.sort_values(DEPTHS, kind="stable")
    of_pairs = by_depth.groupby(keys, sort=False, dropna=False)
    return means.join(of_pairs.pairs_of_layers.agg(_joined)).reset_index()


def _titles_of_layers(values: pd.DataFrame) -> list[str]:
    """Return the layers of each row as texts, with their relative depths."""
    columns = values[[*LAYERS, *DEPTHS]]
    return [
        f"{front} ({front_depth:.2f}) → {end} ({end_depth:.2f})"
        for front, end, front_depth, end_depth in columns.itertuples(index=False)
    ]


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys("; ".join(texts).split("; ")))


def over_networks(
    means: pd.DataFrame, by: Sequence[str], further: Sequence[str] = ()
) -> pd.DataFrame:
    """Compute means over pairs of networks, with 95 % intervals over networks.

    The interval is by Student's t, with the standard error of leaving out each network; with fewer than
    four networks its ends are NaN. A network at several epochs is one network.

    Args:
        means: rows with a value and the training runs of both networks.
        by: the columns that a mean belongs to.
        further: columns whose means are returned as well.
    Returns:
        The columns of `by`, value, low, high, lowest, highest, n_networks and n_pairs, and `further`.
    """
    rows = []
    for key, group in means.groupby(list(by), sort=False, dropna=False):
        quantity = group.quantity.iloc[0]
        row = dict(zip(by, key, strict=True)) | _mean_over_networks(group, quantity)
        pairs = group.groupby(TRAINING, sort=False)
        rows.append(row | {name: float(pairs[name].mean().mean()) for name in further})
    return pd.DataFrame(rows)


def _mean_over_networks(rows: pd.DataFrame, quantity: str) -> dict[str, float]:
    """Compute the mean over pairs of networks, its interval, and the numbers of networks and pairs."""
    values = rows.groupby(TRAINING, sort=False).value.mean()
    pairs = np.array(values.index.to_list())  # (P, 2)
    networks = list(dict.fromkeys(pairs.ravel()))
    is_in_pair = np.array([(pairs == network).any(axis=1) for network in networks])
    numbers = values.to_numpy()
    result = Estimate(
        float(numbers.mean()),
        without_network=_means_of_kept(numbers, ~is_in_pair),
        without_pair=_means_of_kept(numbers, ~np.eye(len(numbers), dtype=bool)),
        groups=np.zeros(len(networks)),
    )
    low, high = np.clip(result.interval(), *possible_values(quantity))
    return {
        "value": result.value,
        "low": float(low),
        "high": float(high),
        "lowest": float(numbers.min()),
        "highest": float(numbers.max()),
        "n_networks": len(networks),
        "n_pairs": len(numbers),
    }


def _means_of_kept(values: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    """Compute the means (N,) of the values that each row of `is_kept` (N, pairs) selects; NaN for none."""
    means = np.full(len(is_kept), np.nan)
    for row, kept in enumerate(is_kept):
        if kept.any():
            means[row] = values[kept].mean()
    return means


def group_means(means: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean over pairs of networks for each pair of groups, method and quantity.

    Args:
        means: from `network_means`.
    """
    by = [*EXPERIMENT, "quantity", *GROUPS, "layers"]
    names = means.front_group + " → " + means.end_group
    means = means.assign(networks=names).sort_values(GROUPS, key=_places(means), kind="stable")
    rows = over_networks(means, [*by, "networks"], ["n_layers"])
    layers = means.groupby(by, sort=False, dropna=False).pairs_of_layers.agg(_joined)
    return rows.merge(layers.reset_index(), on=by) if len(rows) else rows


def _places(means: pd.DataFrame) -> Callable[[pd.Series], pd.Series]:
    """Return a key that sorts groups in the order of their networks."""
    names = list(dict.fromkeys(means[GROUPS].to_numpy().ravel()))
    return lambda groups: groups.map(names.index)


class Comparison(NamedTuple):
    """The comparison of groups of networks: means, tests and their limitations."""

    means: pd.DataFrame  # of pairs of networks, from `network_means`
    groups: pd.DataFrame  # of pairs of groups, from `group_means`
    tests: pd.DataFrame  # from `group_tests`, those with an answer
    untested: list[str]  # questions without an answer, with the reason


def of_several_networks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of methods with several pairs of independent networks; both directions count as one
    pair."""
    rows = between_networks(frame)
    names = [frozenset(pair) for pair in rows[NETWORKS].itertuples(index=False)]
    pairs = pd.Series(names, rows.index, dtype=object).groupby(rows.method)
    return rows[pairs.transform("nunique") > 1]


def compare_groups(frame: pd.DataFrame, quantities: Sequence[str]) -> Comparison:
    """Compare groups of independent trained networks by means and permutation tests."""
    means = network_means(between_networks(frame).dropna(subset=NETWORKS), quantities)
    tests = group_tests(means)
    untested: list[str] = []
    if len(tests):
        reasons = tests[tests.reason != ""].drop_duplicates(
            ["method", "within", "across", "reason"]
        )
        for row in reasons.itertuples():
            untested.append(f"({row.within}) − ({row.across}), {row.method}: {row.reason}")
        tests = tests[tests.reason == ""].drop(columns="reason")
    return Comparison(means, group_means(means), tests, untested)


def group_tests(means: pd.DataFrame) -> pd.DataFrame:
    """Compute the permutation tests between groups, see `permutation_test`.

    A test asks how pairs within a group differ from pairs with a second group's network on one side; of a
    symmetric measure there is one side. Networks move from group to group, so all pairs of networks need
    a value. Where a question has no answer, `reason` says why. Shares of verdicts have no test: what is
    inconclusive may be of either kind.

    Args:
        means: from `network_means`.
    """
    rows = []
    tested = means[~means.quantity.isin(SHARES)]
    for key, of_quantity in tested.groupby([*EXPERIMENT, "quantity"], sort=False, dropna=False):
        columns = dict(zip([*EXPERIMENT, "quantity"], key, strict=True))
        columns["layers"] = of_quantity.layers.iloc[0]
        networks = _networks_of(of_quantity)
        groups = networks.group.unique()
        for group, second in itertools.permutations(groups, 2):
            types = _unlike_types(networks, group, second)
            for side in (END,) if _is_symmetric(of_quantity) else (END, FRONT):
                question = _question(group, second, side)
                answer = _answer(of_quantity, networks, (group, second), side)
                rows.append(columns | question | answer | {"types": types})
    return pd.DataFrame(rows)


def _is_symmetric(means: pd.DataFrame) -> bool:
    """Return whether a measure is symmetric: no pair of networks has values in both directions."""
    pairs = set(zip(means.front_training, means.end_training, strict=True))
    is_measure = means.method.iloc[0] == SIMILARITY
    return is_measure and not any((end, front) in pairs for front, end in pairs if front != end)


def _networks_of(means: pd.DataFrame) -> pd.DataFrame:
    """Return the networks of means with their group, training run and type."""
    columns = ["group", "training", "type"]
    sides = [
        means[[f"{side}_{name}" for name in columns]].set_axis(columns, axis=1) for side in SIDES
    ]
    in_order = pd.concat(sides).sort_index(kind="stable")
    return in_order.drop_duplicates(ignore_index=True)


def on_unlike_types(tests: pd.DataFrame) -> str:
    """Return the sentence on groups that differ in architecture; "" if none do."""
    unlike = tests[tests.types != ""] if len(tests) else tests
    if unlike.empty:
        return ""
    texts = list(dict.fromkeys(map(titles_in, unlike.types)))
    groups = dict.fromkeys(itertools.chain.from_iterable(map(_names_in, texts)))
    if all(text == ", ".join(f"{name}: {name}" for name in _names_in(text)) for text in texts):
        return (
            f"The groups are architectures ({', '.join(groups)}): a difference between groups may be due to the "
            "architecture, or to anything else that differs with it."
        )
    return (
        f"Groups differ in architecture as well ({'; '.join(texts)}), and no test separates the effect of "
        "the architecture from that of the group."
    )


def on_unlike_accuracies(frame: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Return the sentence on groups whose networks differ in accuracy by more than `UNLIKE`; "" if none do.

    Args:
        frame: of stitches, with the accuracies of both networks alone.
        tests: from `group_tests`.
    """
    if tests.empty or "end_accuracy" not in frame:
        return ""
    ends = frame[["end_training", "end_group", "end_accuracy"]].drop_duplicates("end_training")
    means = ends.groupby("end_group", sort=False).end_accuracy.mean().dropna()
    if len(means) < 2 or np.ptp(means) <= UNLIKE:
        return ""
    texts = [f"{titles_in(str(group))} {100 * value:.0f} %" for group, value in means.items()]
    return (
        f"Groups differ in accuracy as well ({', '.join(texts)}): a difference in skill may be due to accuracy, as no "
        "test separates networks that compute differently from networks that are less accurate."
    )


def _names_in(types: str) -> list[str]:
    """Extract the names of the groups from a text of `_unlike_types`."""
    return [part.partition(": ")[0] for part in types.split(", ")]


def _question(group: str, second: str, side: str) -> dict[str, str]:
    """Return the two sets of pairs that a test compares, within the group and across, as texts."""
    across = f"{second} → {group}" if side == FRONT else f"{group} → {second}"
    return {"within": f"{group} → {group}", "across": across, "side": side}


def _answer(
    means: pd.DataFrame, networks: pd.DataFrame, groups: tuple[str, str], side: str
) -> dict[str, Any]:
    """Compute a permutation test between two groups, or return the reason why there is none."""
    members = [list(networks.training[networks.group == group].unique()) for group in groups]
    of_group, of_second = members
    if len(of_group) < 2:
        return {"reason": f"{groups[0]} has fewer than two networks"}
    if set(of_group) & set(of_second):
        return {"reason": "a network is in both groups"}
    names = [*of_group, *of_second]
    table = means.pivot_table(values="value", index=TRAINING[0], columns=TRAINING[1])
    values = table.reindex(index=names, columns=names).to_numpy(dtype=float)
    if _is_symmetric(means):
        values = np.where(np.isnan(values), values.T, values)
    if np.isnan(values[~np.eye(len(names), dtype=bool)]).any():
        return {"reason": "a pair of networks has no value"}
    in_group = np.arange(len(names)) < len(of_group)
    result = permutation_test(values, in_group, side=side)
    answer = {"difference": result.difference, **result._asdict(), "reason": ""}
    return answer | {"n_networks": len(of_group), "n_second": len(of_second)}


def _unlike_types(networks: pd.DataFrame, *groups: str) -> str:
    """Describe the types of networks in both groups; "" if these are equal, or are the groups' names."""
    types = {group: set(networks.type[networks.group == group]) for group in sorted(groups)}
    first, second = types.values()
    if first == second or all(kinds == {group} for group, kinds in types.items()):
        return ""
    return ", ".join(f"{group}: {' and '.join(sorted(kinds))}" for group, kinds in types.items())


def over_depth(frame: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Compute means over pairs of networks as a function of relative depth, with intervals over networks.

    A place is a layer if all networks have the same layers, else one of at most `MAX_STEPS` equal steps of
    relative depth. Each pair of groups has a line, and so have two epochs of one network.
    """
    pairs = of_two_networks(frame)
    values = values_of(corresponding(pairs), quantities, have_directions=False)
    names = [
        " → ".join(groups) for groups in zip(values.front_group, values.end_group, strict=True)
    ]
    values = values.assign(networks=names, layers="", relative_depth=values.front_relative_depth)
    values.loc[values.kind == SAME_RUN, "networks"] = ONE_NETWORK
    if have_equal_layers(pairs):
        values["layers"] = values.front_layer
    else:
        line = [*EXPERIMENT, "quantity", "networks"]
        values["relative_depth"] = math.nan
        n_layers = layers_of(pairs).groupby("network").layer.nunique()
        for _, of_line in values.groupby(line, sort=False, dropna=False):
            values.loc[of_line.index, "relative_depth"] = _steps_of(of_line, n_layers)
    by = [*EXPERIMENT, "quantity", "networks", "layers", "relative_depth"]
    lines = values.groupby(by[:4], sort=False, dropna=False).ngroup()
    in_order = values.assign(line=lines).sort_values(["line", "relative_depth"], kind="stable")
    return over_networks(in_order, by)


def of_two_networks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of two different networks in the list; of measures of similarity only those at full
    rank."""
    is_listed = ~frame[GROUPS].isin([UNLISTED]).any(axis=1)
    return at_full_rank(frame[is_listed & (frame.front_network != frame.end_network)])


def on_architectures(frame: pd.DataFrame) -> str:
    """Return the sentence on groups of different types of networks; "" if all have the same types."""
    networks = pd.concat(
        [frame[[f"{side}_group", f"{side}_type"]].set_axis([0, 1], axis=1) for side in SIDES]
    )
    types = {frozenset(kinds) for _, kinds in networks.groupby(0)[1]}
    return "Groups differ in architecture." if len(types) > 1 else ""


def _steps_of(line: pd.DataFrame, n_layers: pd.Series) -> pd.Series:
    """Bin each row by relative depth: the bin nearest to the mean of both depths, or this mean if it is that of
    all rows in the bin.

    The steps lie at equal distances up to 1, as many as the network with the fewest layers has, but at
    least `MIN_STEPS` and at most `MAX_STEPS`.
    """
    fewest = n_layers[pd.unique(line[NETWORKS].to_numpy().ravel())].min()
    n_steps = min(max(fewest, MIN_STEPS), MAX_STEPS)
    steps = np.arange(1, n_steps + 1) / n_steps
    depth = (line.front_relative_depth + line.end_relative_depth) / 2
    nearest = np.abs(np.subtract.outer(depth.to_numpy(), steps)).argmin(axis=1)
    of_step = depth.groupby(nearest)
    spread = of_step.transform("max") - of_step.transform("min")
    return of_step.transform("first").where(spread < TIE, steps[nearest])


def best_matches(frame: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Find the most similar layer in each other network for each layer of a network.

    A stitch has two answers: of a front layer the best end layer (`side` is "front"), and of an end layer
    the best front layer ("end"). A measure is taken from the layer to the layers of the second network.

    Returns:
        The layer is that of `front_layer`, the match that of `end_layer`. `corresponding` has the layers that
        correspond to it, `corresponding_value` the value of the most similar of these, and `place` its place
        among `n_layers` layers: 1 is the most similar, and ties count against it. `chance` is the
        probability that a random layer is a corresponding one.
    """
    values = values_of(between_networks(frame), quantities)
    is_stitch = values.method != SIMILARITY
    is_symmetric = values.quantity.isin(symmetric_measures(frame))
    sides = [
        values[is_stitch].assign(side=FRONT),
        values[~is_stitch].assign(side=""),
        swapped(values[is_stitch]).assign(side=END),
        swapped(values[is_symmetric]).assign(side=""),
    ]
    asked = [*EXPERIMENT, "quantity", "side", *PAIR, "front_layer", DEPTHS[0]]
    cells = [*asked, "end_layer", DEPTHS[1]]
    rows = pd.concat(sides).groupby(cells, sort=False, dropna=False).value.mean().reset_index()
    rows["similarity"] = [
        similarity(name, value) for name, value in zip(rows.quantity, rows.value, strict=True)
    ]
    rows["corresponds"] = _corresponds(rows)
    keys = [rows[name] for name in asked]
    of_layers = rows.groupby(keys, sort=False, dropna=False)
    rows["n_layers"] = of_layers.end_layer.transform("size")
    rows["chance"] = of_layers.corresponds.transform("mean")
    # Of the corresponding layers, the most similar one
    similarities = rows.similarity.where(rows.corresponds)
    threshold = similarities.groupby(keys, sort=False, dropna=False).transform("max")
    of_nearest = rows.value.where(similarities == threshold)
    grouped_values = of_nearest.groupby(keys, sort=False, dropna=False)
    rows["corresponding_value"] = grouped_values.transform("first")
    is_ahead = ~rows.corresponds & (rows.similarity >= threshold)
    n_ahead = is_ahead.groupby(keys, sort=False, dropna=False).transform("sum")
    rows["place"] = (1 + n_ahead).where(threshold.notna()).astype("Int64")
    named = rows[rows.corresponds].groupby(asked, sort=False, dropna=False).end_layer.agg(";".join)
    rows = rows.merge(named.rename("corresponding").reset_index(), on=asked, how="left")
    groups = rows.groupby(asked, sort=False, dropna=False)
    best = rows.loc[groups.similarity.idxmax()].copy()
    best["question"] = best.groupby(asked[:-2], sort=False, dropna=False).ngroup()
    in_order = best.sort_values(["question", DEPTHS[0]], kind="stable")
    answers = ["n_layers", "corresponding", "corresponding_value", "place", "chance"]
    return in_order[[*cells, "value", *answers]]


def similarity(quantity: str, value: float) -> float:
    """Convert a value to a scale on which higher is more similar."""
    if quantity in QUANTITIES:
        return QUANTITIES[quantity].similarity(value)
    return measure_of(quantity).similarity(value)


def _corresponds(rows: pd.DataFrame) -> pd.Series:
    """Return whether the end layer corresponds to the front layer: by name in networks of one type, else by
    nearest relative depth."""
    kinds = architectures(rows)
    gap = (rows.front_relative_depth - rows.end_relative_depth).abs()
    keys = [rows[name] for name in (*EXPERIMENT, "quantity", *NETWORKS, "front_layer")]
    is_nearest = gap < gap.groupby(keys, dropna=False).transform("min") + TIE
    return (rows.front_layer == rows.end_layer).where(kinds.front == kinds.end, is_nearest)


def match_shares(matches: pd.DataFrame) -> pd.DataFrame:
    """Compute how often the best match is the corresponding layer, for each pair of groups, with its chance
    level, mean place and number of layers. Layers whose corresponding layer was not measured do not count.

    Args:
        matches: from `best_matches`.
    """
    counted = matches.dropna(subset="place")
    is_end = counted.side == END
    names = counted[GROUPS].where(~is_end, swapped(counted[GROUPS]))
    counted = counted.assign(networks=names.front_group + " → " + names.end_group)
    shares = counted.assign(value=(counted.place == 1).astype(float), match=counted.quantity)
    shares["quantity"] = SHARE  # whose values are in [0, 1]
    by = [*EXPERIMENT, "side", "match", "networks"]
    rows = over_networks(shares, by, ["chance", "place", "n_layers"])
    return rows.rename(columns={"match": "quantity"})


def matrix(
    frame: pd.DataFrame, quantity: str, rows: str = "front_layer", columns: str = "end_layer"
) -> pd.DataFrame:
    """Return the mean of a quantity as a matrix over two columns of a frame, with layers in the order of depth.

    Args:
        rows: the column of the lines, such as "front_layer" or "front_network".
        columns: that of the columns.
    """
    table = _with_shares(frame).pivot_table(
        values=quantity, index=rows, columns=columns, dropna=False
    )
    table = table.reindex(index=_ordered(frame, rows), columns=_ordered(frame, columns))
    return table.astype(float)


def _ordered(frame: pd.DataFrame, column: str) -> list[str]:
    """Return the distinct values of a column in order; layers are ordered by depth."""
    names = list(frame[column].dropna().unique())
    if column not in LAYERS:
        return names
    depth = column.replace("layer", "depth")
    if depth not in frame:
        depth = column.replace("layer", "relative_depth")
    recorded = frame.dropna(subset=depth)
    return by_depth(names, dict(zip(recorded[column], recorded[depth], strict=True)))


def agreement(frame: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Compute the rank correlation of each quantity with known differences of pairs of networks.

    A pair counts by the mean over its compared layers and over both directions. The score is Spearman's
    rank correlation, over pairs, of known difference and measured dissimilarity: 1 for a quantity that
    orders all pairs as they differ. The interval is that of `over_networks`, of Fisher's z, and p the share of
    permutations of the networks with a score at least as high (Mantel 1967).

    Args:
        frame: of at least three networks.
        truth: front_network, end_network and value: the difference of a pair, in either order.
    Returns:
        method, dataset, quantity, value, low, high, p_value, n_networks, n_pairs; and `reason`, where a
        pair has no value.
    Raises:
        UserError: the frame has no pair of the networks.
    """
    known = _by_pair(truth.value, truth)
    names = list(dict.fromkeys(truth[NETWORKS].to_numpy().ravel()))
    of_names = between_networks(frame)
    of_names = of_names[of_names[NETWORKS].isin(names).all(axis=1)]
    means = network_means(of_names, [*STITCHED, SHARE, *measures_in(frame)])
    if means.empty:
        others = dict.fromkeys(frame[NETWORKS].to_numpy().ravel())
        raise UserError(
            f"no results of two of the networks {listed(names)}; name some of {listed(others)}"
        )
    rows = []
    for key, of_quantity in means.groupby([*EXPERIMENT, "quantity"], sort=False, dropna=False):
        dissimilarity = [-_as_similarity(key[2], value) for value in of_quantity.value]
        measured = _by_pair(pd.Series(dissimilarity, index=of_quantity.index), of_quantity)
        networks = [name for name in names if any(name in pair for pair in measured)]
        columns = dict(zip([*EXPERIMENT, "quantity"], key, strict=True))
        rows.append(columns | _score(measured, known, networks))
    return pd.DataFrame(rows)


def _as_similarity(quantity: str, value: float) -> float:
    return value if quantity in SHARES else similarity(quantity, value)


def _by_pair(values: pd.Series, table: pd.DataFrame) -> dict[frozenset[str], float]:
    """Compute the mean of the values of each unordered pair of networks."""
    pairs = [frozenset(names) for names in zip(*(table[name] for name in NETWORKS), strict=True)]
    return values.groupby(pd.Series(pairs, index=values.index)).mean().to_dict()


def _score(
    measured: dict[frozenset[str], float], known: dict[frozenset[str], float], networks: list[str]
) -> dict[str, Any]:
    """Compute the rank correlation of a quantity with known differences, with its interval and p-value."""
    pairs = [frozenset(pair) for pair in itertools.combinations(networks, 2)]
    row: dict[str, Any] = {
        "value": math.nan,
        "low": math.nan,
        "high": math.nan,
        "p_value": math.nan,
    }
    row |= {"n_networks": len(networks), "n_pairs": len(pairs)}
    if len(networks) < 3 or not all(pair in measured and pair in known for pair in pairs):
        return row | {"reason": "a pair of networks has no value, or there are fewer than three"}
    values = np.array([measured[pair] for pair in pairs])
    truths = np.array([known[pair] for pair in pairs])

    def score(of_measure: np.ndarray, of_truth: np.ndarray) -> np.ndarray:
        places = zip(np.atleast_2d(of_measure), np.atleast_2d(of_truth), strict=True)
        return np.array(
            [_rank_correlation(values[first], truths[second]) for first, second in places]
        )

    def fisher_z(of_measure: np.ndarray, of_truth: np.ndarray) -> np.ndarray:
        return np.arctanh(np.clip(score(of_measure, of_truth), -LARGEST_RHO, LARGEST_RHO))

    (value,) = score(np.arange(len(pairs)), np.arange(len(pairs)))
    low, high = np.tanh(estimate(fisher_z, np.zeros(len(networks))).interval())
    p_value = permuted_p(score, len(networks), N_PERMUTATIONS)
    return row | {"value": value, "low": low, "high": high, "p_value": p_value, "reason": ""}


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Compute Spearman's rank correlation; NaN if either side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(scipy.stats.spearmanr(first, second).statistic)
