"""The feature store: values as without it, one pass of each network, other images, races, broken files."""

import multiprocessing
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from src.checkpoints import load_model, load_state, save_state
from src.datasets import load_dataset
from src.errors import UserError
from src.images import ImageSpec
from src.models import Network, build_model
from src.networks import NetworkName
from src.similarity import Comparison, linear_cka, mutual_knn, pwcca_distance
from src.similarity import arrays as arrays_module
from src.similarity.arrays import has_array, read_array, write_array
from src.similarity.registry import MEASURES
from src.similarity.store import FeatureStore, Side
from src.similarity.stored_layer import Source
from tests.commands import (
    ON_DIGITS,
    ROOT,
    digit_images,
    names_in,
    parse_similarity,
    read_csv,
    read_json,
    run,
    run_process,
)

SCRIPT, TYPE = "exec_compute_low_rank_sim_metrics.py", "small_cnn"
SETTINGS = [*ON_DIGITS, "-n", "60"]
ALL_MEASURES = ["--metrics", *MEASURES]


def networks(folder: Path, n: int, name: str = TYPE) -> list[Path]:
    """Save n networks of random weights."""
    paths = []
    for seed in range(n):
        torch.manual_seed(seed)
        paths.append(folder / f"{name}{seed}.pt")
        save_state(paths[-1], build_model(name, n_channels=1, image_shape=(1, 8, 8)).state_dict())
    return paths


def compare(first, second, *arguments, layers=("all", "all"), status: int = 0):
    return run(SCRIPT, first, second, TYPE, TYPE, *layers, *SETTINGS, *arguments, status=status)


def numbers(path) -> list[dict[str, float]]:
    """The columns of a table that are numbers."""
    rows = []
    for row in read_csv(path):
        rows.append({})
        for name, text in row.items():
            if name not in ("model1", "model2", "rank1", "rank2") and text.replace(".", "").replace("e-", "").isdigit():
                rows[-1][name] = float(text)
    return rows


def passes(said: str) -> int:
    return said.count("passes over 60 images")


@pytest.fixture
def pair(in_tmp_path):
    return networks(in_tmp_path, 2)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ["--alignment", "pool", "--permutations", "19", "-m1r", "0", "8", "3", "-m2r", "8"], marks=pytest.mark.slow
        ),
        pytest.param(["--alignment", "auto", "--permutations", "19"], marks=pytest.mark.slow),
        ["--alignment", "positions", "-m2r", "4"],
    ],
    ids=["pool", "auto", "positions"],
)
def test_values_are_those_without_a_store(pair, options):
    """Also those of permutations; and also when the store has everything."""
    compare(*pair, *ALL_MEASURES, *options, "-o", "without.csv")
    said = [compare(*pair, *ALL_MEASURES, *options, "--store", "S", "-o", f"{i}.csv").err for i in range(2)]
    assert [passes(text) for text in said] == [2, 0]
    assert all(("need positions of both networks" in text) == ("pool" not in options) for text in said)
    expected = numbers("without.csv")
    assert set(MEASURES) < expected[0].keys() and ("cka_p_value_within_max" in expected[0]) == ("19" in options)
    for i in range(2):
        found = numbers(f"{i}.csv")
        assert [row.keys() for row in found] == [row.keys() for row in expected]
        for row, other in zip(found, expected, strict=True):
            assert row == pytest.approx(other, abs=1e-6)


def test_n_networks_take_n_passes(in_tmp_path):
    """And single commands take n(n − 1), two for each pair."""
    paths = networks(in_tmp_path, 4)
    said = [compare(*each, "--metrics", "cka", "--store", "S", "-o", "s.csv").err for each in combinations(paths, 2)]
    assert sum(map(passes, said)) == 4 and [passes(text) for text in said] == [2, 1, 1, 0, 0, 0]
    assert sorted(path.name for path in Path("S").iterdir()) == ["digits-60"]
    assert len([path for path in Path("S/digits-60").iterdir() if path.is_dir()]) == 4


def test_what_is_missing_is_added(pair):
    """Other layers, measures, ranks; a network that is compared with itself has one pass for both sides."""
    steps = [
        (["--metrics", "cka"], ("pool1", "pool2"), 2),
        (["--metrics", "mutual_knn"], ("pool1", "pool2"), 0),
        (["--metrics", "cka"], ("pool1,pool2", "pool2"), 1),
        (["--metrics", "cka", "-m2r", "4"], ("pool1", "pool2"), 1),
        (["--metrics", "pwcca", "--alignment", "pool"], ("pool1", "pool2"), 1),  # -m2r made the pooled features of one
        (["--metrics", "pwcca", "--alignment", "pool", "--amp", "bf16"], ("pool1", "pool2"), 2),
        (["--metrics", "cka", "-n", "50"], ("pool1", "pool2"), 0),  # not 60
    ]
    for options, layers, expected in steps:
        said = compare(*pair, *options, "--store", "S", layers=layers).err
        assert passes(said) == expected, options
    assert said.count("passes over 50 images") == 2
    said = compare(pair[0], pair[0], "--metrics", "cka", "--store", "T", layers=("pool1", "pool2,pool1")).err
    assert passes(said) == 1


def test_a_changed_checkpoint_gets_its_own_entries(pair, in_tmp_path):
    compare(*pair, "--metrics", "cka", "--store", "S", layers=("pool3", "pool3"))
    before = names_in(Path("S/digits-60"))
    moved = in_tmp_path / "moved.pt"
    moved.write_bytes(pair[0].read_bytes())
    assert passes(compare(moved, pair[1], "--metrics", "cka", "--store", "S", layers=("pool3", "pool3")).err) == 0
    state = load_state(pair[0])
    save_state(pair[0], {key: value * 1.5 for key, value in state.items()})
    said = compare(*pair, "--metrics", "cka", "--store", "S", "-o", "s.csv", layers=("pool3", "pool3")).err
    assert passes(said) == 1 and len(names_in(Path("S/digits-60")) - before) == 1
    compare(*pair, "--metrics", "cka", "-o", "w.csv", layers=("pool3", "pool3"))
    assert numbers("s.csv")[0]["cka"] == pytest.approx(numbers("w.csv")[0]["cka"], abs=1e-6)


def test_other_images_are_refused(pair, in_tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 10

    def save(order) -> None:
        np.savez("own.npz", x_train=images, y_train=labels, x_test=images[order], y_test=labels[order])

    def command(*more, status: int = 0) -> str:
        arguments = [*pair, TYPE, TYPE, "pool1", "pool2", "-d", "own.npz", "-gpu", "-1", "-n", "30", "-b", *more]
        return run(SCRIPT, *arguments, "--metrics", "cka", "--store", "S", status=status).err

    save(np.arange(40))
    command("64")
    assert "passes over" not in command("7")  # the batch size is no part of it
    order = np.arange(40)
    order[:2] = 1, 0
    save(order)
    (line,) = command("64", status=2).strip().splitlines()
    assert "is of other images of that name, or of these in another order" in line and "choose another --store" in line
    save(np.arange(40)[:30])  # the first 30 are the same
    assert "passes over" not in command("64")


def test_positions_alone_are_refused(pair):
    arguments = "--metrics", "procrustes", "pwcca", "--store", "S"
    said = compare(*pair, *arguments, layers=("pool2", "pool2"), status=2).err
    (line,) = said.strip().splitlines()
    assert "procrustes, pwcca of 1 pairs of layers need positions of both networks" in line
    assert "--alignment pool" in line and not Path("S").exists()
    said = compare(*pair, *arguments, layers=("pool2", "pool2,pool3")).err
    assert "procrustes, pwcca of 1 pairs of layers need positions of both networks" in said
    assert "positions" not in compare(*pair, *arguments, "--alignment", "pool", layers=("pool2", "pool2")).err


@pytest.mark.slow
def test_layers_without_values_say_so_as_without_a_store(pair):
    state = load_state(pair[0])
    first = next(key for key in state if key.endswith("weight"))
    options = [*ALL_MEASURES, "--alignment", "pool", "-m1r", "0", "2"]
    for factor in (0, float("nan")):
        save_state(pair[0], {key: value * (factor if key == first else 1) for key, value in state.items()})
        said = []
        for i, store in enumerate([(), ("--store", "S"), ("--store", "S")]):
            said.append(compare(*pair, *options, *store, "-o", f"{i}.csv", layers=("pool1", "pool2")).err)
            said[-1] = [line for line in said[-1].splitlines() if "nan:" in line]
        assert said[0] and said[0] == said[1] == said[2]
        values = [[row[name] for row in read_csv(f"{i}.csv") for name in MEASURES] for i in range(3)]
        assert values[0] == values[1] == values[2] and "nan" in values[0]


def test_the_format_as_the_documentation_reads_it(pair):
    """The example of methods.md, and measures from the arrays by their plain definitions."""
    compare(*pair, *ALL_MEASURES, "--alignment", "pool", "-m1r", "0", "4", "--store", "S", "-o", "s.csv")
    row = next(row for row in read_csv("s.csv") if row["layer1"] == row["layer2"] == "pool3" and row["rank1"] == "")
    folders = {read_json(path / "gram.json")["checkpoint"]: path for path in Path("S/digits-60").glob("*/pool3")}
    folders = [folders[str(path)] for path in pair]
    grams, offsets, pooled = (
        [np.load(path / f"{name}.npy") for path in folders] for name in ("gram", "offsets", "pooled")
    )
    assert (grams[0] * grams[1]).sum() / np.linalg.norm(grams[0]) / np.linalg.norm(grams[1]) == pytest.approx(
        float(row["cka"]), abs=1e-9
    )
    assert pwcca_distance(*pooled) == pytest.approx(float(row["pwcca"]), abs=1e-6)
    # Factors of the matrices that are not centred stand for the activations.
    factors = []
    for gram, offset in zip(grams, offsets, strict=True):
        values, vectors = np.linalg.eigh(gram + offset[:, None] + offset)
        factors.append(vectors * np.sqrt(values.clip(0)))
    assert linear_cka(*factors) == pytest.approx(float(row["cka"]), abs=1e-6)
    assert mutual_knn(*factors) == pytest.approx(float(row["mutual_knn"]), abs=2e-3)
    about = read_json(folders[0] / "gram_rank4.json")
    assert about["rank"] == 4 and about["shape"] == [60, 60] and about["layer"] == "pool3" and about["type"] == TYPE
    assert about["images_sha256"] == read_json("S/digits-60/images.json")["images_sha256"]
    assert read_json("S/digits-60/images.json")["labels"] == digit_images(train=False).labels[:60].tolist()
    code = (ROOT / "misc/docs/methods.md").read_text().split("<!-- reads a store -->\n```python\n")[1].split("```")[0]
    found = {}
    exec(code.replace("store/digits-360", "S/digits-60"), found)
    assert found["cka"][0, 1] == pytest.approx(float(row["cka"]), abs=1e-9)


def test_a_half_written_array_never_appears(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(size=(50, 20))
    write_array(tmp_path, "gram", array, {"contents": "numbers"})
    assert np.array_equal(np.load(tmp_path / "gram.npy"), array) and isinstance(read_array(tmp_path, "gram"), np.memmap)
    read_array(tmp_path, "gram")[0, 0] = 7  # of the copy in memory
    assert np.load(tmp_path / "gram.npy")[0, 0] == array[0, 0]

    def fail(path, blocks):
        def broken():
            yield next(iter(blocks))
            raise KeyboardInterrupt

        write_blocks(path, broken())

    write_blocks = arrays_module.write_blocks
    monkeypatch.setattr(arrays_module, "write_blocks", fail)
    with pytest.raises(KeyboardInterrupt):
        write_array(tmp_path, "other", array, {})
    with pytest.raises(KeyboardInterrupt):
        write_array(tmp_path, "gram", array + 1, {})
    assert names_in(tmp_path) == {"gram.npy", "gram.json"} and not has_array(tmp_path, "other")
    assert np.array_equal(np.load(tmp_path / "gram.npy"), array)
    (tmp_path / "gram.npy").write_bytes((tmp_path / "gram.npy").read_bytes()[:1000])  # by a copy that was cut off
    with pytest.raises(UserError, match="cannot read .*gram.npy: .*they are made again"):
        read_array(tmp_path, "gram")
    (tmp_path / "other.npy").write_bytes((tmp_path / "gram.json").read_bytes())
    assert not has_array(tmp_path, "other")  # without a JSON it does not count


def fill(paths, barrier, counter) -> None:
    """Fill a store with both networks and compare them, at the same time as others do."""
    from tests.commands import run

    torch.set_num_threads(1)
    barrier.wait()
    said = run(SCRIPT, *paths, TYPE, TYPE, "all", "all", *SETTINGS, *ALL_MEASURES, "--alignment", "pool",
               "--store", "S", "-o", f"{multiprocessing.current_process().name}.csv").err  # fmt: skip
    with counter.get_lock():
        counter.value += passes(said)


@pytest.mark.slow
def test_two_processes_fill_one_store(pair):
    """Each network is still run once, and both get the values of a single command."""
    context = multiprocessing.get_context("spawn")
    barrier, counter = context.Barrier(2), context.Value("i", 0)
    orders = [pair, pair[::-1]]
    both = [
        context.Process(target=fill, args=(order, barrier, counter), name=name)
        for order, name in zip(orders, "ab", strict=True)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(200)
    assert [process.exitcode for process in both] == [0, 0] and counter.value == 2
    assert not [path for path in Path("S").rglob("*.part")]
    for order, name in zip(orders, "ab", strict=True):
        compare(*order, *ALL_MEASURES, "--alignment", "pool", "-o", "alone.csv")
        for row, other in zip(numbers(f"{name}.csv"), numbers("alone.csv"), strict=True):
            assert row == pytest.approx(other, abs=1e-6)


@pytest.mark.slow
def test_as_a_process(pair):
    for expected in (2, 0):
        said = run_process(
            SCRIPT, *pair, TYPE, TYPE, "pool1", "pool3", *SETTINGS, "--metrics", "cka", "--store", "S"
        ).err
        assert passes(said) == expected
    next(Path("S").rglob("gram.npy")).write_bytes(b"")
    said = run_process(
        SCRIPT, *pair, TYPE, TYPE, "pool1", "pool3", *SETTINGS, "--metrics", "cka", "--store", "S", status=2
    ).err
    assert "gram.npy" in said and "remove both files" in said


def test_sources_are_told_apart(tmp_path):
    (path,) = networks(tmp_path, 1)
    name = NetworkName(str(path), TYPE)
    sources = [
        Source(name), Source(name, amp="bf16"), Source(name, tf32=True), Source(name, channels_last=True),
        Source(name, code_sha256="1"), Source(name._replace(type="resnet18")),
        Source(NetworkName("-", TYPE, 0)), Source(NetworkName("-", TYPE, 1)),
    ]  # fmt: skip
    assert len({source.folder for source in sources}) == len(sources)
    assert "/" not in Source(NetworkName("-", "/home/me/nets.py:cnn", 0)).folder


@pytest.mark.slow
def test_eight_networks_are_five_times_faster(in_tmp_path, monkeypatch):
    """CKA of all pairs: single commands take 8 · 7 passes, one process with a store takes 8. At most 7 times faster.

    On digits of twice the size: on the small ones, loading and tracing take as long as the passes.
    """
    torch.set_num_threads(1)
    model, n, info = "resnet18_samewidth", 360, ImageSpec(10, (1, 16, 16))
    paths, digits = networks(in_tmp_path, 8, model), np.load(ROOT / "src/datasets/embedded/digits.npz")
    images, labels = digits["test_images"][:, 0].repeat(2, axis=1).repeat(2, axis=2), digits["test_labels"]
    np.savez("large.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    n_taken, inner = 0, Network.activations

    def counted(network, images, layers, **options):
        nonlocal n_taken
        n_taken += len(images) * (len(images) > 2)  # two images of noise only show the shapes
        return inner(network, images, layers, **options)

    monkeypatch.setattr(Network, "activations", counted)
    start, expected = time.process_time(), {}
    for i, j in combinations(range(8), 2):
        layers = [paths[i], paths[j], model, model, "all", "all"]
        printed = run(SCRIPT, *layers, "-d", "large.npz", "-gpu", "-1", "-n", n, "--metrics", "cka").out
        expected[i, j] = list(parse_similarity(printed).values())
    alone, n_alone = time.process_time() - start, n_taken

    n_taken, start, found = 0, time.process_time(), {}
    test_set = load_dataset(str(Path("large.npz").resolve()), "", train=False)
    store = FeatureStore("S", "large.npz", test_set, n_images=n, batch_size=64)
    sides = []
    for path in paths:
        name = NetworkName(str(path), model)
        network = load_model(name, info)
        sides.append(Side(Source(name), network, network.block_names))
    for i, j in combinations(range(8), 2):
        stored = store.pair(sides[i], sides[j], metrics=["cka"], device="cpu")
        names = sides[i].layers, sides[j].layers
        comparison = Comparison(*names, n_images=n, metrics=["cka"], stored=stored)
        found[i, j] = [row.values["cka"] for (row,) in comparison.rows()]
    together = time.process_time() - start
    assert (n_alone, n_taken) == (8 * 7 * n, 8 * n)
    for each, values in expected.items():
        assert len(values) == 64 and found[each] == pytest.approx(values, abs=1e-6)
    print(f"56 passes: {alone:.1f} s, 8 passes: {together:.1f} s")
    assert alone > 5 * together
