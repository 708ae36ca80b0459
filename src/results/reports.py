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
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy  # loads a part of it at its first use

from src.core.choices.similarity import SIMILARITY, measure_of
from src.core.console import counted, listed
from src.core.errors import UserError
from src.core.grouping import by_depth
from src.core.user_code import titles_in
from src.results.frame import architectures, layers_of, measures_in, of_either_side, similarity
from src.results.tables import (
    AUROC,
    DEPTHS,
    GROUPS,
    LAYERS,
    NETWORKS,
    PAIRS,
    QUANTITIES,
    SAME_RUN,
    SIDES,
    SKILL,
    STITCHING,
    TRAINING,
    TYPES,
    UNLISTED,
    measured_by,
)
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
POSSIBLE = {name: entry.possible for name, entry in QUANTITIES.items()}
POSSIBLE |= dict.fromkeys(SHARES, (0, 1))
MATCHED = ("accuracy", "skill")  # the quantities that stitches are matched by
UNLIKE = 0.05  # of the mean accuracies of groups, that a sentence names
MIN_STEPS = 3  # of relative depth
MAX_STEPS = 12
N_PERMUTATIONS = 9_999
LARGEST_RHO = 1 - 1e-9  # whose z is finite


def of_two_networks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of two different networks in the list; of measures of similarity only those at full
    rank."""
    is_listed = ~frame[GROUPS].isin([UNLISTED]).any(axis=1)
    is_whole = frame.reindex(columns=["front_rank", "end_rank"]).isna().all(axis=1)
    return frame[is_listed & is_whole & (frame.front_network != frame.end_network)]


def between_networks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of pairs of independent trained networks, see `of_two_networks`."""
    rows = of_two_networks(frame)
    return rows[rows.kind == PAIRS]


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
    return frame[_corresponds(frame, NETWORKS, LAYERS)]


def _corresponds(frame: pd.DataFrame, keys: Sequence[str], layers: Sequence[str]) -> pd.Series:
    """Return whether the layers of each row correspond, see `corresponding`.

    Args:
        keys: the columns that tell pairs of networks apart.
        layers: the columns of layers that have to be the nearest of all.
    """
    kinds = architectures(frame)
    gap = (frame.front_relative_depth - frame.end_relative_depth).abs()
    is_nearest = pd.Series(True, index=frame.index)
    for layer in layers:
        of_layer = gap.groupby([frame[name] for name in (*keys, layer)], dropna=False)
        is_nearest &= gap < of_layer.transform("min") + TIE
    return (frame.front_layer == frame.end_layer).where(kinds.front == kinds.end, is_nearest)


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
    networks = frame.groupby(NETWORKS).ngroup()
    is_common = networks.groupby([frame[name] for name in LAYERS]).transform("nunique") == n_pairs
    is_alike = is_common & (frame.front_layer == frame.end_layer)
    if not is_common.any():
        return frame, ALL_LAYERS
    kept = frame[is_alike if is_alike.any() else is_common]
    text = counted(kept.groupby(LAYERS).ngroups, "pair of layers", "pairs of layers")
    return kept, f"{text} of the same name" if is_alike.any() else text


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
    is_of_stitches = long.quantity.isin([*QUANTITIES, *SHARES]) | long.quantity.str.startswith(
        AUROC
    )
    long = long[is_of_stitches != (long.method == SIMILARITY)].astype({"value": float})
    front, end = (long[f"{side}_group"] + "\0" + long[f"{side}_training"] for side in SIDES)
    without_direction = symmetric_measures(frame) if have_directions else measures_in(frame)
    is_moved = long.quantity.isin(without_direction) & (front > end)
    return pd.concat([long[~is_moved], swapped(long[is_moved])]).sort_index(kind="stable")


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


def network_means(frame: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Compute the mean over the compared layers for each quantity, method and ordered pair of networks.

    `compared_layers` chooses the layers of each method, which `layers` names; `n_layers` is their number
    with a value, and `pairs_of_layers` lists them with their relative depths.
    """
    tables = [frame.assign(quantity="", value=0.0, layers="")[:0]]
    for _, of_method in frame.groupby(EXPERIMENT, sort=False, dropna=False):
        rows, text = compared_layers(of_method)
        tables.append(values_of(rows, quantities).assign(layers=text))
    values = pd.concat(tables[1:] or tables)
    front, end = (
        values[f"{side}_layer"] + values[f"{side}_relative_depth"].map(" ({:.2f})".format)
        for side in SIDES
    )
    values["pairs_of_layers"] = front + " → " + end
    keys = [*EXPERIMENT, "quantity", *PAIR, "layers"]
    groups = values.groupby(keys, sort=False, dropna=False)
    means = groups.agg(value=("value", "mean"), n_layers=("pairs_of_layers", "nunique"))
    by_depth = values.sort_values(DEPTHS, kind="stable")
    of_pairs = by_depth.groupby(keys, sort=False, dropna=False)
    return means.join(of_pairs.pairs_of_layers.agg(_joined)).reset_index()


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
        pairs = group.groupby(TRAINING, sort=False)
        values = pairs.value.mean()
        networks = pd.unique(np.array(values.index.to_list()).ravel())
        is_in_pair = np.equal.outer(networks, np.array(values.index.to_list())).any(axis=2)
        possible = POSSIBLE.get(group.quantity.iloc[0], (-math.inf, math.inf))
        result = Estimate(
            values.mean(),
            without_network=np.array([values[~is_left_out].mean() for is_left_out in is_in_pair]),
            without_pair=(values.sum() - values.to_numpy()) / max(len(values) - 1, 1),
        )
        low, high = np.clip(result.interval(), *possible)
        rows.append(
            dict(zip(by, key, strict=True))
            | {"value": result.value, "low": low, "high": high}
            | {"lowest": values.min(), "highest": values.max()}
            | {"n_networks": len(networks), "n_pairs": len(values)}
            | {name: float(pairs[name].mean().mean()) for name in further}
        )
    return pd.DataFrame(rows)


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
        sides = of_either_side(of_quantity, ["group", "training", "type"])
        networks = sides.sort_index(kind="stable").drop_duplicates(ignore_index=True)
        groups = networks.group.unique()
        for group, second in itertools.permutations(groups, 2):
            types = _unlike_types(networks, group, second)
            for side in (END,) if _is_symmetric(of_quantity) else (END, FRONT):
                across = f"{second} → {group}" if side == FRONT else f"{group} → {second}"
                question = {"within": f"{group} → {group}", "across": across, "side": side}
                answer = _answer(of_quantity, networks, (group, second), side)
                rows.append(columns | question | answer | {"types": types})
    return pd.DataFrame(rows)


def _is_symmetric(means: pd.DataFrame) -> bool:
    """Return whether a measure is symmetric: no pair of networks has values in both directions."""
    pairs = set(zip(means.front_training, means.end_training, strict=True))
    is_measure = means.method.iloc[0] == SIMILARITY
    return is_measure and not any((end, front) in pairs for front, end in pairs if front != end)


def on_unlike_types(tests: pd.DataFrame) -> str:
    """Return the sentence on groups that differ in architecture; "" if none do."""
    texts = (
        list(dict.fromkeys(map(titles_in, tests.types[tests.types != ""]))) if len(tests) else []
    )
    if not texts:
        return ""
    kinds_of = dict.fromkeys(", ".join(texts).split(", "))
    groups = dict.fromkeys(text.partition(": ")[0] for text in kinds_of)
    if all(text in kinds_of for text in (f"{name}: {name}" for name in groups)):
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
    groups = values.front_group + " → " + values.end_group
    names = groups.mask(values.kind == SAME_RUN, ONE_NETWORK)
    values = values.assign(networks=names, layers="", relative_depth=values.front_relative_depth)
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


def on_architectures(frame: pd.DataFrame) -> str:
    """Return the sentence on groups of different types of networks; "" if all have the same types."""
    networks = of_either_side(frame, ["group", "type"])
    types = {frozenset(kinds) for _, kinds in networks.groupby("group").type}
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
    is_both_ways = (values.method != SIMILARITY) | values.quantity.isin(symmetric_measures(frame))
    sides = [values.assign(side=FRONT), swapped(values[is_both_ways]).assign(side=END)]
    rows = pd.concat(sides)
    rows["side"] = rows.side.where(rows.method != SIMILARITY, "")
    asked = [*EXPERIMENT, "quantity", "side", *PAIR, "front_layer", DEPTHS[0]]
    cells = [*asked, "end_layer", DEPTHS[1]]
    rows = rows.groupby(cells, sort=False, dropna=False).value.mean().reset_index()
    rows["similarity"] = list(map(similarity, rows.quantity, rows.value))
    corresponds = _corresponds(rows, [*EXPERIMENT, "quantity", *NETWORKS], ["front_layer"])
    # Of the corresponding layers, the most similar one
    similarities = rows.similarity.where(corresponds)
    keys = [rows[name] for name in asked]
    highest = similarities.groupby(keys, sort=False, dropna=False).transform("max")
    rows = rows.assign(
        corresponds=corresponds,
        corresponding=rows.end_layer.where(corresponds),
        corresponding_value=rows.value.where(similarities == highest),
        is_ahead=~corresponds & (rows.similarity >= highest),
    )
    layers = rows.groupby(asked, sort=False, dropna=False)
    found = layers.agg(
        n_layers=("end_layer", "size"),
        corresponding=("corresponding", lambda names: ";".join(names.dropna()) or None),
        corresponding_value=("corresponding_value", "first"),
        place=("is_ahead", "sum"),
        chance=("corresponds", "mean"),
        best=("similarity", "idxmax"),
    ).reset_index()
    found["place"] = (1 + found.place).where(found.corresponding.notna()).astype("Int64")
    found["question"] = found.groupby(asked[:-2], sort=False, dropna=False).ngroup()
    in_order = found.sort_values(["question", DEPTHS[0]], kind="stable").set_index("best")
    matches = rows.loc[in_order.index, [*cells, "value"]]
    return matches.join(
        in_order[["n_layers", "corresponding", "corresponding_value", "place", "chance"]]
    )


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
        measured = _by_pair(-of_quantity.value.map(partial(similarity, key[2])), of_quantity)
        networks = [name for name in names if any(name in pair for pair in measured)]
        columns = dict(zip([*EXPERIMENT, "quantity"], key, strict=True))
        rows.append(columns | _score(measured, known, networks))
    return pd.DataFrame(rows)


def _by_pair(values: pd.Series, table: pd.DataFrame) -> dict[frozenset[str], float]:
    """Compute the mean of the values of each unordered pair of networks."""
    pairs = [frozenset(names) for names in zip(*(table[name] for name in NETWORKS), strict=True)]
    return values.groupby(pd.Series(pairs, index=values.index)).mean().to_dict()


def _score(
    measured: dict[frozenset[str], float], known: dict[frozenset[str], float], networks: list[str]
) -> dict[str, Any]:
    """Compute the rank correlation of a quantity with known differences, with its interval and p-value."""
    pairs = [frozenset(pair) for pair in itertools.combinations(networks, 2)]
    row: dict[str, Any] = dict.fromkeys(("value", "low", "high", "p_value"), math.nan)
    row |= {"n_networks": len(networks), "n_pairs": len(pairs)}
    if len(networks) < 3 or not all(pair in measured and pair in known for pair in pairs):
        return row | {"reason": "a pair of networks has no value, or there are fewer than three"}
    values = np.array([measured[pair] for pair in pairs])
    truths = np.array([known[pair] for pair in pairs])

    def score(of_measure: np.ndarray, of_truth: np.ndarray) -> np.ndarray:
        return _rank_correlations(values[of_measure], truths[of_truth])

    def fisher_z(of_measure: np.ndarray, of_truth: np.ndarray) -> np.ndarray:
        return np.arctanh(np.clip(score(of_measure, of_truth), -LARGEST_RHO, LARGEST_RHO))

    low, high = np.tanh(estimate(fisher_z, len(networks)).interval())
    p_value = permuted_p(score, len(networks), N_PERMUTATIONS)
    value = float(_rank_correlations(values, truths))
    return row | {"value": value, "low": low, "high": high, "p_value": p_value, "reason": ""}


def _rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Spearman's rank correlations (...) of arrays (..., P); NaN if either side is constant."""
    ranks = [scipy.stats.rankdata(side, axis=-1) for side in (first, second)]
    x, y = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    squares = np.square(x).sum(-1) * np.square(y).sum(-1)
    return (x * y).sum(-1) / np.sqrt(np.where(squares > 0, squares, np.nan))
