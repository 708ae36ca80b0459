"""Results on disk: tables, experiments and runs of the public code."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from src.core.errors import UserError
from src.core.values import Pair
from src.figures.maps import Map, draw_layers
from src.results import spec as lists
from src.results.network_names import UNTRAINED, NamedNetwork, titles_of
from src.results.public import chosen_options, read_options
from src.results.run import Run
from src.results.spec import COLUMNS_OF_WEIGHTS, NETWORKS, SPLITS, described, difference, spec_of
from src.results.stitches import (
    GRID,
    METRICS,
    SETTINGS,
    Stitch,
    columns_of,
    experiments_of,
    keys_of,
    method_names,
    newest_by_experiment,
    newest_stitches,
    stitches_of_run,
    with_empty,
)
from src.results.tables import (
    EVALUATIONS,
    PROBES,
    QUANTITIES,
    SIMILARITIES,
    Layout,
    columns,
    from_record,
    json_object,
    read_table,
    write_table,
)
from tests.commands import parser_of, says
from tests.goldens import DATA
from tests.result_rows import OPTIONS, evaluation_row, probe_row, similarity_row, stitch, stitch_row


def stitch_of(options) -> Stitch:
    """A stitch of a run with these options."""
    layers = {name: options[name] for name in Pair._fields}
    record = {**columns_of(options), **layers, "accuracy": 0.5, "end_accuracy": 0.5}
    (made,) = stitches_of_run(Path("f"), options, [record])
    return made


def experiment(**options) -> Stitch:
    return stitch_of(OPTIONS | options)


def key(made: Stitch) -> str:
    (of_stitch,) = keys_of([made])
    return of_stitch


def titles_of_experiments(stitches) -> list[str]:
    return list(dict.fromkeys(experiments_of(list(stitches))))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    """A file f.pt in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.pt").write_bytes(b"weights")
    return tmp_path / "f.pt"


def differing(before, now) -> str:
    """How the specs of two runs differ, by their options."""
    return described(difference(spec_of(before), spec_of(now)))


def identity(path, kind: str = "resnet18", seed: int | None = None) -> str:
    return NamedNetwork(str(path), kind, seed).identity


def test_a_copy_of_a_checkpoint_under_another_name_is_the_same_network(checkpoint, tmp_path):
    """In experiments and in the options of runs; of a file that is not there the place counts."""
    (tmp_path / "m").mkdir()
    copy = shutil.copy(checkpoint, tmp_path / "m" / "g.pt")
    (tmp_path / "link.pt").symlink_to(checkpoint)
    same = ("f.pt", "./f.pt", "m/../f.pt", str(checkpoint), str(copy), "link.pt")
    assert (
        len({key(experiment(front_model_path=name)) for name in same})
        == 1
        == len(set(map(identity, same)))
    )
    begun = {"model_path": "f.pt", "model_type": "resnet18"}
    assert not any(differing(begun, begun | {"model_path": name}) for name in same)
    Path(copy).write_bytes(b"others")
    assert identity(copy) != identity("f.pt")
    others = differing(begun, begun | {"model_path": "m/g.pt"})
    assert others == f"model_weights was {identity('f.pt')}, now {identity(copy)}"
    missing = ("m/no.pt", "./m//no.pt", "x/../m/no.pt", tmp_path / "m" / "no.pt")
    assert {identity(name) for name in missing} == {str(tmp_path / "m" / "no.pt")}
    assert identity("no.pt") not in (identity("m/no.pt"), identity("f.pt"))


def test_untrained_weights_are_the_same_by_seed_and_type():
    names = [(UNTRAINED, "resnet18", 0), (UNTRAINED, "resnet18", 1), (UNTRAINED, "resnet34", 0)]
    assert len({identity(*name) for name in names}) == 3 and identity(*names[0]) == identity(
        *names[0]
    )
    untrained = {"front_model_path": UNTRAINED, "end_model_path": UNTRAINED}
    one, other = experiment(**untrained, seed=1), experiment(**untrained, seed=2)
    assert one.networks[0].seed == 1 and one.networks[0].is_untrained
    assert (
        one.networks[0] == one.networks[1]
        and one.networks[0].identity != other.networks[0].identity
    )
    assert experiment(**untrained, seed=1, init="eye").network_keys == one.network_keys
    assert (
        experiment(seed=1).network_keys == experiment(seed=2).network_keys
    )  # of checkpoints, it seeds the stitch


def test_what_a_run_recorded_of_weights_counts_and_not_what_the_file_holds_now(checkpoint):
    records = [
        {},
        {"front_model_path_sha256": "0" * 64},
        {"front_model_path_sha256": identity("f.pt") + "0" * 52},
    ]
    now, earlier, recorded = (experiment(front_model_path="f.pt", **record) for record in records)
    assert key(now) != key(earlier) and earlier.record["front_weights"] == "0" * 12
    assert now.spec["front_model_weights"][:12] == recorded.spec["front_model_weights"][:12]
    rows = [
        stitch(front_model_path="f.pt", front_weights=each.record["front_weights"])
        for each in (recorded, earlier)
    ]
    assert titles_of_experiments(rows) == [
        f"front_model_weights={identity('f.pt')}",
        f"front_model_weights={'0' * 12}",
    ]
    other = stitch(front_model_path="g.pt", front_weights="1" * 12)
    assert titles_of_experiments([rows[0], other]) == [
        f"front_model_weights={identity('f.pt')}",
        f"front_model_weights={'1' * 12}",
    ]


OTHER = {
    "dataset": "mnist", "front_model_path": "c.pt", "end_model_path": "c.pt", "front_model_type": "resnet34",
    "end_model_type": "resnet34", "stitching_type": "t2t", "init": "eye", "objective": "soft", "n_epochs": 30,
    "n_pinv_init_samples": 7, "front_stitch_rank": 8, "front_pinv_rank": 8, "pinv_cutoff": "exact",
    "seed": 1, "shortcut": 0.0,
}  # fmt: skip


def test_networks_of_one_title_are_told_apart(checkpoint):
    names = [NamedNetwork("f.pt", "resnet18", weights=digit * 12) for digit in "01"]
    titles = {name.key: f"f.pt [resnet18, {name.weights}]" for name in names}
    assert titles_of(names) == titles


def test_a_data_set_that_is_not_recorded_is_unknown():
    rows = [stitch(dataset=dataset, seed=seed) for dataset in (None, "") for seed in (0, 1)]
    assert titles_of_experiments(rows) == ["-s 0", "-s 1"]


def test_the_settings_of_a_stitch_are_columns_of_its_row(tmp_path):
    options = OPTIONS | {"save_dir": "x", "gpu": -1}
    made = stitch_of(options)
    further = {*COLUMNS_OF_WEIGHTS, *SPLITS, "stitching_option", "further_options"}
    assert SETTINGS.keys() == {*OTHER, *further}
    assert made.pair == Pair("layer1.0", "layer2.0")
    assert repr(made.record) == repr(experiment(objective="task").record)  # NaN equals NaN
    assert stitch(seed=7).record | {"end_accuracy": 0.5} == experiment(seed=7).record
    assert key(stitch(seed=7)) == key(experiment(seed=7))
    Run(tmp_path, options).finish()
    assert read_options(tmp_path / "config.txt") == options


def stitch_in(folder: str, **values) -> Stitch:
    return stitch(folder=folder, **values)


@pytest.mark.parametrize("split", SPLITS)
def test_different_images_are_different_experiments_and_unrecorded_ones_are_not(split, capsys):
    def of(folder: str, images: str | None, **values) -> Stitch:
        return stitch_in(folder, **{split: images}, **values)

    first = "a" * 12
    second = "b" * 12
    runs = [of("1", None), of("2", first)]
    assert newest_stitches(runs) == runs[1:]
    assert "1 result repeats another" in capsys.readouterr().err
    assert titles_of_experiments(runs) == [""]

    runs += [of("3", second), of("4", second, seed=1)]
    assert newest_stitches(runs) == runs and not capsys.readouterr().err
    groups = titles_of_experiments(runs)
    assert len(groups) == 4
    names = [f"digits [{SPLITS[split]} {digits}]" for digits in (first, second, second)]
    for title, name in zip(groups, ["digits", *names], strict=True):
        assert f"-d {name}" in title
    methods = method_names(runs, apart_from=[*NETWORKS, "seed"])
    assert methods[2] == methods[3] and len(set(methods)) == 3

    # Of other data, or with dots, there are other images
    others = [of("5", first, dataset="mnist"), of("6", second, shortcut=0.5)]
    titles = set(experiments_of([runs[1], *others]))
    assert len(titles) == 3 and not any("[" in title for title in titles)


def test_types_that_were_chosen_for_pairs_of_layers_tell_no_experiments_apart():
    row = stitch(stitching_option="auto")
    other_type = stitch(stitching_option="auto", stitching_type="t2c", end_layer="layer3.0")
    whole = experiment(stitching_type="auto")
    assert key(row) == key(other_type) == key(whole) != key(stitch())
    assert titles_of_experiments([row, other_type]) == [""]
    titles = [f"stitching_type={name}" for name in ("rc2c_pre", "auto")]
    assert titles_of_experiments([stitch(), row]) == titles

    # So are the tokens that were chosen, and not those that were asked for
    pairs = {
        Pair("x", name): {
            "stitching_type": kind,
            "stitching_option": "auto",
            "c2t_cls_token": token,
        }
        for name, kind, token in (("a", "c2t", "learn"), ("b", "rc2c_pre", None))
    }
    asked = OPTIONS | {"stitching_type": "auto", "c2t_cls_token": "learn"}
    found = [stitch_of(chosen_options({**asked, **pair._asdict()}, pairs[pair])) for pair in pairs]
    assert {key(each) for each in found} == {key(stitch_of(asked))} != {key(whole)}


def test_of_repeated_stitches_the_newest_counts(capsys):
    """Of the same layers in the same experiment, in whatever order; others are no repetitions."""

    def run_in(folder: str, **values) -> Stitch:
        return stitch_in(folder, **values)

    runs = [run_in("1"), run_in("2", end_layer="layer3.0"), run_in("3", seed=1)]
    assert newest_stitches(runs) == runs and not capsys.readouterr().err
    again = run_in("4", front_model_path="./a.pt")
    assert newest_stitches([*runs, again]) == [*runs[1:], again]
    assert says(capsys.readouterr().err, "1 result repeats another", "newest")
    assert newest_stitches([again, *runs]) == [again, *runs[1:]]
    evaluated = dataclasses.replace(runs[0], evaluation={"skill": 0.5})
    assert newest_stitches([evaluated, *runs[1:], again]) == [evaluated, *runs[1:]]
    expected = {"-s 0": [runs[1], again], "-s 1": [runs[2]]}
    assert newest_by_experiment([again, *runs]) == expected
    assert says(capsys.readouterr().err, "1 result repeats another", "newest")


def test_the_name_of_a_method():
    for options, name in (
        ({"n_epochs": 0, "init": "pinv"}, "direct matching"),
        ({"n_epochs": 0, "init": "ortho"}, "ortho matching"),
        ({"n_epochs": 0, "init": "eye", "objective": "hint"}, "init eye"),
        ({"n_epochs": None, "init": "pinv"}, "task loss matching"),
        ({"n_epochs": 3, "objective": "hint"}, "hint matching"),
    ):
        assert experiment(**options).method == name


def test_every_option_counts_or_is_in_a_list():
    """Beside options that let all others have an effect; what its absence means is its default."""
    default = {}
    for action in parser_of("exec_stitch.py")._actions:
        default[action.dest] = action.default
    del default["help"]
    options = default | OPTIONS | {"init": "pinv", "learning_rate": 0.5}
    usual_key = key(experiment(**options))
    for name in default:
        value = [7] if name == "reduce_lr_epochs" else "7"
        changed = key(experiment(**options | {name: value}))
        assert (changed == usual_key) == (name in (*lists.NOT_COMPARED, *lists.LAYERS)), name
    for name in lists.OPTIONS.keys() - OPTIONS.keys():
        usual = options | {name: default[name]}
        without = {other: value for other, value in usual.items() if other != name}
        assert key(stitch_of(without)) == key(stitch_of(usual)), name
    (config, *_) = (DATA / "public_runs").rglob("config.txt")
    public = read_options(config)
    assert key(stitch_of(public)) == key(stitch_of(default | public))
    flags = {name: option.flag for name, option in lists.OPTIONS.items() if option.flag}
    actions = parser_of("exec_stitch.py")._option_string_actions
    assert {name: actions[flag].dest for name, flag in flags.items()} == {
        name: name for name in flags
    }


def test_an_option_without_effect_does_not_count():
    trained = {
        "learning_rate": 0.5, "optimizer": "sgd", "weight_decay": 0.1, "scheduler": "cosine", "reduce_lr_epochs": [1],
        "grad_clip": 1.0, "l1_coef": 0.1, "mod_only_stitch": True,
    }  # fmt: skip
    matched = {"n_pinv_init_samples": 7, "front_pinv_rank": 3, "pinv_cutoff": "exact"}
    for base, idle in (
        ({"n_epochs": 0, "init": "pinv"}, trained),
        ({"init": "rand"}, matched),
        ({"init": "ortho"}, {"pinv_cutoff": "exact"}),
    ):
        assert key(experiment(**base, **idle)) == key(experiment(**base))
    for name, value in trained.items():
        assert key(experiment(**{name: value})) != key(experiment())
    for name, value in matched.items():
        assert key(experiment(init="pinv", **{name: value})) != key(experiment(init="pinv"))


def test_further_options_have_a_column():
    options = [{}, {"learning_rate": 0.5}, {"reduce_lr_epochs": [2, 4], "amp": "bf16"}]
    further = [json.loads(experiment(**each).record["further_options"]) for each in options]
    assert further == options


def test_a_method_has_the_options_in_which_it_differs():
    settings = [
        {"learning_rate": 0.1, "n_epochs": 5, "batch_size": 8},
        {"learning_rate": 0.1, "n_epochs": 9, "batch_size": 8, "reduce_lr_epochs": [2, 4]},
        {"init": "pinv", "n_epochs": 0},
    ]
    assert method_names([experiment(**each) for each in settings], apart_from=[]) == [
        "task loss matching (-e 5, -rlre none)",
        "task loss matching (-e 9, -rlre 2 4)",
        "direct matching",
    ]
    every = [name for name in lists.OPTIONS if name not in ("dataset", "init", "n_epochs")]
    ablations = [experiment(init="pinv", **{name: "7"}) for name in every]
    assert len(set(method_names(ablations, apart_from=[]))) == len(every)


def test_options_that_change_no_result_do_not_differ():
    begun = {"seed": 0, "gpu": 0, "n_workers": 4, "verbose": False, "of_the_public_code": 1}
    now = begun | {"gpu": -1, "n_workers": 0, "verbose": True}
    assert differing(begun, now) == ""
    assert differing(begun, now | {"seed": 1}) == "seed was 0, now 1"
    assert differing(begun, now | {"new": 2}) == "new was none, now 2"
    for n_epochs, is_free in (
        (0, True),
        (1, False),
    ):  # without a training run, its options are free
        begun, given = ({"n_epochs": n_epochs, "learning_rate": rate} for rate in (0.1, 0.2))
        of_stitch = {"stitching_type": "t2t"}
        assert (differing(begun | of_stitch, given | of_stitch) == "") == is_free
    untrained = {"model_path": "-", "model_type": "x"}
    begun, given = (
        untrained | {"model_path_sha256": digest, "seed": seed} for seed, digest in enumerate("ab")
    )
    assert differing(begun, given) == "model_weights was a, now b, seed was 0, now 1"


MEANS = (
    "accuracy,accuracy_low,accuracy_high,accuracy_drop,accuracy_drop_low,accuracy_drop_high,"
    "seed_spread,front_accuracy,end_accuracy"
)
STITCH = (
    "front_model_path,end_model_path,front_model_type,end_model_type,dataset,stitching_type,init,n_pinv_init_samples,"
    "front_pinv_rank,front_stitch_rank,objective,n_epochs,pinv_cutoff,seed,shortcut,front_weights,end_weights,"
    "train_images,test_images,stitching_option,further_options,front_layer,end_layer,folder"
)
COLUMNS = {  # that all tables of a layout have
    "grid": (
        f"{STITCH},accuracy,front_accuracy,end_accuracy,matching_error,representation_difference,agreement,kappa,"
        "n_images,n_fitting_samples,matching_rank,r2_fit,r2_test,truncated,front_depth,end_depth,"
        "front_relative_depth,end_relative_depth,end_is_cut,front_nondeterminism,end_nondeterminism"
    ),
    "evaluations": (
        "folder,front_layer,end_layer,dataset,shortcut,train_images,test_images,id_dataset,sanity_dataset,accuracy,"
        "correlation,baseline,skill,skill_low,skill_high,correlation_at_end,baseline_at_end,skill_at_end,"
        "skill_at_end_low,skill_at_end_high,n_images,n_classes,width,n_copies,rows_per_channel"
    ),
    "probes": (
        "model,layer,rank,accuracy,train_accuracy,loss,seed,epochs,model_type,dataset,n_images,shortcut,model_weights,"
        "train_images,test_images,further_options"
    ),
    "similarities": (
        "model1,model2,layer1,layer2,rank1,rank2,alignment,n_samples,model1_type,model2_type,dataset,"
        "alignment_option,n_permutations,seed,shortcut,model1_weights,model2_weights,test_images,"
        "relative_depth1,relative_depth2,further_options"
    ),
}
LAYOUTS = {
    "grid": GRID,
    "evaluations": EVALUATIONS,
    "probes": PROBES,
    "similarities": SIMILARITIES,
}
SAMPLES = {
    str: 'm, n/é "last"',
    int: 3,
    float: 0.1 + 0.2,
    bool: False,
    json_object: '{"a": [1, "é"]}',
}


def record_of(layout: Layout, *, full: bool) -> dict[str, Any]:
    """A record with a value for every column, or without those that may be missing and with numbers
    that are none."""
    samples = SAMPLES if full else SAMPLES | {float: math.nan, bool: True}
    values: dict[str, Any] = {}
    for name, hint in layout.types.items():
        kinds = get_args(hint) or (hint,)
        values[name] = None if not full and type(None) in kinds else samples.get(kinds[0])
    if full:
        values |= {"cka": 1 / 3, "pwcca": 1e-300, "procrustes": math.inf}
    return values


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", COLUMNS)
def test_records_are_read_as_they_were_written(tmp_path, kind, full):
    names = COLUMNS[kind]
    layout = LAYOUTS[kind]
    record = record_of(layout, full=full)
    write_table(tmp_path / "t.csv", layout, [record, record])
    assert (tmp_path / "t.csv").read_text().startswith(names)
    found = [*read_table(tmp_path / "t.csv", layout), from_record(layout, record)]
    assert [repr(one) for one in found] == [repr(record)] * 3  # NaN differs from itself
    assert columns(layout) == names.split(",")


@pytest.mark.parametrize("further", [{}, {"sparsity_0": 0.5}])
def test_empty_columns_of_a_stitch_have_their_usual_values(further):
    record = record_of(GRID, full=True) | further
    assert with_empty(record) == record
    empty = with_empty(record | {"objective": None, "kappa": None, "seed": None})
    assert empty["objective"] == "task" and math.isnan(empty["kappa"]) and empty["seed"] is None
    assert {*METRICS} < {*columns(GRID)}


HOUSES = Layout(
    "houses",
    "nobody",
    {"street": str, "height": float | None, "name": str, "n_baselines": int},
    optional=("name", "n_baselines"),
)


def test_a_table_has_the_further_columns_of_all_its_records(tmp_path):
    records = [
        {"street": "A", "height": 2.0, "name": "none", "n_baselines": 1},
        {"street": "B", "height": None, "name": None, "n_baselines": 1, "hall": 1.0},
        {"street": "C", "height": 1.0, "name": None, "n_baselines": None, "attic": math.inf},
    ]
    write_table(tmp_path / "t.csv", HOUSES, records)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "street,height,name,n_baselines,hall,attic",
        "A,2.0,none,1,,",
        "B,,,1,1.0,",
        "C,1.0,,,,inf",
    ]
    assert read_table(tmp_path / "t.csv", HOUSES) == records


def test_what_is_missing_or_empty_is_none():
    record = {"street": "A", "height": None, "name": None, "n_baselines": None}
    for empty in ({}, {"name": "", "n_baselines": ""}, {"name": None, "n_baselines": None}):
        assert from_record(HOUSES, {"street": "A"} | empty) == record
    with pytest.raises(ValueError, match="^street$"):
        from_record(HOUSES, {"street": "", "height": 1})


def test_damaged_values_name_column_file_and_line(tmp_path):
    for row, column, values in (
        (stitch_row(), "accuracy", ["high", None, "", [0.5]]),
        (stitch_row(), "seed", ["0.5", "x", [1]]),
        (stitch_row(), "init", ["", None]),
        (stitch_row(), "further_options", ["{", "[1]", "x"]),
        (similarity_row(), "cka", ["high"]),
        (similarity_row(), "layer1", ["", None]),
    ):
        layout = SIMILARITIES if "layer1" in row else GRID
        for value in values:
            with pytest.raises(ValueError, match=f"^{column}$"):
                from_record(layout, row | {column: value})
    path = tmp_path / "grid.csv"
    rows = [stitch_row(), stitch_row(accuracy=0.25)]
    write_table(path, GRID, rows)
    path.write_text(path.read_text().replace(",0.25,", ",high,"))
    with pytest.raises(
        UserError, match=r"grid\.csv, line 3: accuracy is missing or damaged; correct it$"
    ):
        read_table(path, GRID)


def test_a_table_is_read_as_what_it_is_and_no_other(tmp_path):
    path = tmp_path / "t.csv"
    stitch = stitch_row()
    rows = [from_record(GRID, stitch), evaluation_row(), probe_row(), similarity_row()]
    kinds = [GRID, EVALUATIONS, PROBES, SIMILARITIES]
    for kind, row in zip(kinds, rows, strict=True):
        write_table(path, kind, [row])
        (found,) = read_table(path, *kinds)
        assert repr(found) == repr(row)  # NaN differs from itself
        for other in kinds:
            if other is kind:
                continue
            with pytest.raises(UserError) as raised:
                read_table(path, other)
            line = f"{path} is no table of {other.contents} ({other.written_by})"
            assert str(raised.value).startswith(f"{line}: it lacks ")
    with pytest.raises(
        UserError,
        match=r"is no table of probing \(exec_probe\.py -o\) or stitching \(exec_stitch\.py",
    ):
        (tmp_path / "empty.csv").touch()
        read_table(tmp_path / "empty.csv", PROBES, GRID)


EXAMPLES = [  # (quantity, value of a similar stitch, value of a different one)
    ("accuracy", 0.9, 0.1),
    ("accuracy_drop", 0.0, 0.4),
    ("representation_difference", 0.1, 0.9),
    ("skill", 0.9, 0.2),
    ("skill_at_end", 0.9, -0.2),
    ("correlation", 0.9, 0.5),
    ("correlation_at_end", 0.9, 0.1),
    ("auroc", 0.5, 0.9),
    ("auroc", 0.5, 0.2),
    ("aupr", 0.5, 0.9),
    ("fpr95", 0.95, 0.2),
    ("agreement", 0.9, 0.5),
    ("r2_test", 0.8, 0.1),
]


@pytest.mark.parametrize(("name", "similar", "different"), EXAMPLES)
def test_dark_is_similar(name, similar, different, tmp_path, drawn_figures):
    matrix = pd.DataFrame([[similar, different]], ["x"], ["a", "b"])
    draw_layers(tmp_path / "f.png", [Map(name, matrix)])
    image = drawn_figures["f.png"].axes[0].images[0]
    dark, bright = (sum(image.to_rgba(value)[:3]) for value in (similar, different))
    assert dark < bright
    assert QUANTITIES[name].similarity(similar) > QUANTITIES[name].similarity(different)
