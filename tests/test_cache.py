"""One cache for all that is kept: a budget, what goes first, and keys that cannot be stale."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from src.core.cache import Cache
from src.core.inputs import InputSpec
from src.core.tensors import save_state
from src.models import Network, build_model
from src.results.checkpoints import Session
from src.results.network_names import NamedNetwork
from tests.commands import says

SPEC = InputSpec(10, (1, 8, 8))


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def used(cache: Cache, network: str, n_batches: int = 5) -> int:
    """Take 10 bytes for each batch of a network, as a pass does; return how many were kept."""
    n_kept = 0
    for batch in range(n_batches):
        value = cache.get((network, batch))
        if value is None:
            cache.keep((network, batch), f"{network}{batch}", 10)
        else:
            assert value == f"{network}{batch}"
            n_kept += 1
        assert cache.n_bytes <= cache.max_bytes
    return n_kept


@pytest.mark.parametrize(("max_bytes", "least"), [(0, 0), (25, 0.02), (150, 0.35), (200, 0.5)])
def test_a_budget_is_kept_and_a_cycle_of_networks_does_not_empty_it(max_bytes, least, capsys):
    """Six networks of 50 bytes, each an end network for all others in turn."""
    cache = Cache(max_bytes)
    n_kept = 0
    n_used = 0
    for end, front in itertools.permutations("abcdef", 2):
        cache.begin_unit()
        n_kept += used(cache, front) + used(cache, end)
        n_used += 10
    assert least * n_used <= n_kept < n_used
    assert says(capsys.readouterr().err, "computed again")
    cache.clear()
    assert cache.n_bytes == 0 and cache.get(("a", 0)) is None


def test_all_that_fits_is_computed_once(capsys):
    cache = Cache(300)
    n_kept = 0
    for end, front in itertools.permutations("abcdef", 2):
        cache.begin_unit()
        n_kept += used(cache, front) + used(cache, end)
    assert n_kept == 30 * 10 - 6 * 5 and cache.n_bytes == 300 and capsys.readouterr().err == ""


@torch.no_grad()
def test_a_batch_passes_once_for_each_layer():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Linear(24, 10)).eval()
    network = Network(module, image_shape=(1, 8, 8), n_classes=10).keeping(Cache(10**6))
    expected = network.activations(images(5), ["1", "2"])
    n_seen = []
    module[0].register_forward_hook(lambda module, inputs, output: n_seen.append(len(output)))
    for names, seed, n_passes in ((["1"], 0, 1), (["1"], 0, 1), (["2", "1"], 0, 2), (["1"], 1, 3)):
        kept = network.activations(images(5, seed=seed), names, keep=True)
        assert list(kept) == names and len(n_seen) == n_passes
        assert all(torch.equal(kept[name], expected[name]) for name in names) == (seed == 0)


@torch.no_grad()
def test_equal_weights_share_and_a_changed_checkpoint_does_not(tmp_path):
    states = {}
    for seed in range(2):
        torch.manual_seed(seed)
        states[seed] = build_model("small_cnn", n_classes=10, n_channels=1).state_dict()
    for name, seed in {"a": 0, "copy": 0, "b": 1}.items():
        save_state(tmp_path / f"{name}.pt", states[seed])
    cache = Cache(10**6)

    def pool4(path: Path) -> torch.Tensor:
        """The activation in a session of its own."""
        name = NamedNetwork(str(path), "small_cnn")
        network = Session(cache).network(name, SPEC, device="cpu")
        (values,) = network.activations(images(5), ["pool4"], keep=True).values()
        assert torch.equal(values, network.activations(images(5), ["pool4"])["pool4"])
        return values

    first = pool4(tmp_path / "a.pt")
    assert pool4(tmp_path / "copy.pt") is first
    save_state(tmp_path / "a.pt", states[1])
    assert pool4(tmp_path / "a.pt") is not first
    assert pool4(tmp_path / "b.pt") is pool4(tmp_path / "a.pt")
