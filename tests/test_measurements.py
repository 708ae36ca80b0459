"""Tables read back: what tells them apart, signs, full ranks, repetitions, and what is refused."""

import math

import pytest

from src.errors import UserError
from src.measurements import FULL, Key, Probe, Series, read_tables

SIMILARITY = "model1,model2,layer1,layer2,rank1,rank2,alignment,n_samples,cka,pwcca,procrustes,pwcca_morcos\n"
PROBING = "model,layer,rank,accuracy,train_accuracy,loss,seed,epochs\n"
STITCHING = (
    "front_layer,end_layer,stitching_type,init,front_stitch_rank,front_pinv_rank,seed,accuracy,front_accuracy,"
    "end_accuracy,matching_error,representation_difference,folder\n"
)


def write(path, *lines: str):
    path.write_text("".join(lines))
    return path


def test_distances_are_negated_and_what_was_not_measured_is_left_out(tmp_path):
    rows = "a.pt,b.pt,x,y,8,,positions,10,0.5,0.25,0.125,\n", "a.pt,b.pt,x,y,,4,positions,10,0.75,nan,0.5,\n"
    values, probes, _ = read_tables([write(tmp_path / "s.csv", SIMILARITY, *rows)])
    models = ("a.pt", "b.pt")
    one, two = Key("x", "y", 8, FULL), Key("x", "y", FULL, 4)
    assert probes == {} and {series.measure for series in values} == {"cka", "pwcca", "procrustes"}
    assert values[Series("cka", "a.pt -- b.pt", models)] == {one: 0.5, two: 0.75}
    assert values[Series("procrustes", "a.pt -- b.pt", models)] == {one: -0.125, two: -0.5}
    pwcca = values[Series("pwcca", "a.pt -- b.pt", models)]
    assert pwcca[one] == -0.25 and math.isnan(pwcca[two])


def test_tables_of_the_same_networks_become_one_and_the_last_of_repetitions_counts(tmp_path, capsys):
    one = write(tmp_path / "1.csv", SIMILARITY, "./m/a.pt,b.pt,x,y,,,p,10,0.5,,,\n")
    two = write(tmp_path / "2.csv", SIMILARITY, "m/a.pt,b.pt,x,y,,,p,10,0.7,,,\n", "m/a.pt,b.pt,z,y,,,p,10,0.1,,,\n")
    ((series, values),) = read_tables([one, two, one]).values.items()
    assert series.models == ("m/a.pt", "b.pt")
    assert values == {Key("x", "y", FULL, FULL): 0.7, Key("z", "y", FULL, FULL): 0.1}
    assert "hold 1 measurements of what was measured before; the last of each counts" in capsys.readouterr().err


def test_values_of_other_alignments_are_kept_apart(tmp_path):
    header = SIMILARITY.replace("\n", ",alignment_option\n")
    rows = "a.pt,b.pt,x,y,,,positions,10,0.5,0.25,,,auto\n", "a.pt,b.pt,x,y,,,average pool,10,0.5,0.75,,,pool\n"
    values, _, alignments = read_tables([write(tmp_path / "s.csv", header, *rows)])
    assert {(series.measure, series.setting): list(found.values()) for series, found in values.items()} == {
        ("cka", "a.pt -- b.pt"): [0.5],
        ("pwcca", "a.pt -- b.pt"): [-0.25],
        ("pwcca", "a.pt -- b.pt, pool"): [-0.75],
    }
    assert [list(names.values()) for names in alignments.values()] == [["positions"], ["average pool"]]


def test_the_last_probe_of_a_rank_counts(tmp_path, capsys):
    rows = "a.pt,x,4,0.5,,1.5,0,2\n", "a.pt,x,4,0.75,0.5,1.25,1,2\n", "a.pt,x,,0.8,0.5,1.0,0,2\n"
    values, probes, _ = read_tables([write(tmp_path / "p.csv", PROBING, *rows)])
    assert values == {} and "hold 1 measurements" in capsys.readouterr().err
    assert probes == {("a.pt", "x"): {4: Probe(0.75, 1.25), FULL: Probe(0.8, 1.0)}}


def test_stitches_are_kept_apart_by_networks_and_method(tmp_path, capsys):
    """Direct matching and training that goes on from it, and two directions of the same networks, never mix."""
    header = STITCHING.replace("\n", ",front_model_path,end_model_path,objective,n_epochs,n_pinv_init_samples\n")
    row = "x,y,rc2c_pre,pinv,,,0,{},0.9,0.9,0.1,0.2,t,{},{},task,{},100\n"
    measured = ((0.1, "a.pt", "b.pt", 0), (0.9, "a.pt", "b.pt", 5), (0.2, "./b.pt", "a.pt", 0))
    path = write(tmp_path / "grid.csv", header, *(row.format(*values) for values in measured))
    values = {(s.models, s.method): list(found.values()) for s, found in read_tables([path]).values.items()}
    assert values == {
        (("a.pt", "b.pt"), "direct matching"): [0.1],
        (("a.pt", "b.pt"), "task loss matching"): [0.9],
        (("b.pt", "a.pt"), "direct matching"): [0.2],
    }
    assert not capsys.readouterr().err


def test_old_tables_of_stitching_are_kept_apart_by_file_and_start(tmp_path):
    rows = "x,y,rc2c_pre,pinv,8,8,0,0.25,0.9,0.9,0.1,0.2,t1\n", "x,y,rc2c_pre,rand,,,0,0.5,nan,nan,nan,nan,t2\n"
    path = write(tmp_path / "grid.csv", STITCHING, *rows)
    settings = {name: f"{path}: rc2c_pre, {name}" for name in ("init pinv", "task loss matching")}
    assert read_tables([path]).values == {
        Series("stitching accuracy", settings["init pinv"], (None, None), "init pinv"): {Key("x", "y", 8, FULL): 0.25},
        Series("stitching accuracy", settings["task loss matching"], (None, None), "task loss matching"): {
            Key("x", "y", FULL, FULL): 0.5
        },
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "is no table of similarity, probing or stitching; give the CSV of"),
        ("", "is no table of similarity"),
        (PROBING + "a.pt,x,4,high,,1.5,0,2\n", "line 2 is damaged .*accuracy"),
        (PROBING + "a.pt,x,4,0.5,,1.5,0,2\na.pt,x\n", "line 3 is damaged"),
        (SIMILARITY + "a.pt,b.pt,x,y,4.5,,p,10,0.5,,,\n", "line 2 is damaged .*'4.5'"),
        (STITCHING + "x,y,rc2c_pre,rand,,,0,high,nan,nan,0.0,0.2,t1\n", "line 2 is damaged .*accuracy"),
        (STITCHING + "x,y,rc2c_pre,rand,z,,0,0.5,nan,nan,0.0,0.2,t1\n", "line 2 is damaged .*front_stitch_rank"),
    ],
)
def test_refuses_other_files_and_damaged_ones(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_tables([write(tmp_path / "t.csv", content)])


def test_refuses_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*no\.csv: No such file"):
        read_tables([tmp_path / "no.csv"])
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*bytes\.csv"):
        read_tables([tmp_path / "bytes.csv"])
