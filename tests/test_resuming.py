"""A training that is interrupted anywhere and goes on ends as if nothing had happened."""

import math
import signal

import pytest
import torch
from torch import nn

from src import signals
from src.datasets.in_memory import ImageSet
from src.errors import UserError
from src.resuming import StateFile
from src.run_folder import RunFolder
from src.training import Classification, NonFiniteLoss, Settings, train

OPTIONS = {"learning_rate": 0.1, "gpu": 0, "resume": False}
SETTINGS = [
    Settings(3, 8),
    Settings(3, 8, optimizer="adamw", scheduler="cosine", grad_clip=0.1),
    Settings(3, 8, optimizer="sgd", reduce_lr_epochs=[1, 2]),
    Settings(3, 8, reduce_lr_epochs=[4], reduce_lr_each="updates"),
]


class Interrupting(ImageSet):
    """Images that send a signal before a batch; batches are counted over all epochs and validations."""

    def __init__(self, at: int | None = None):
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (20, 1, 4, 4), dtype=torch.uint8, generator=generator)
        super().__init__(pixels, torch.arange(20) % 2, n_classes=2)
        self.at, self.n_delivered = at, 0

    def _batch(self, *arguments, **options):
        if self.n_delivered == self.at:
            signal.raise_signal(signal.SIGTERM)
        self.n_delivered += 1
        return super()._batch(*arguments, **options)


def task() -> Classification:
    torch.manual_seed(3)
    layers = (nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    return Classification(nn.Sequential(*layers))


def run(settings: Settings, images: ImageSet, state: StateFile | None = None):
    """Train; returns the weights after every epoch that was yielded, and the logs."""
    trained, weights, history = task(), {}, []
    with signals.handled():
        for history in train(trained, images, images, settings, state=state):  # noqa: B007
            values = trained.heads[0].state_dict().items()
            weights[len(history)] = {key: value.clone() for key, value in values}
    return weights, history


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_going_on_changes_nothing(settings, tmp_path):
    weights, history = run(settings, Interrupting())
    for at in range(18):  # three epochs of three batches, each with three of validation
        path = tmp_path / f"{at}.pt"
        with pytest.raises(signals.Interrupted):
            run(settings, Interrupting(at), StateFile(path, OPTIONS, resume=False))
        again, again_history = run(settings, Interrupting(), StateFile(path, OPTIONS, resume=True))
        assert again_history == history and 3 in again
        for epoch, state in again.items():
            assert all(torch.equal(value, weights[epoch][key]) for key, value in state.items()), (at, epoch)


def test_a_killed_training_yields_its_last_epoch_again(tmp_path):
    weights, history = run(SETTINGS[0], Interrupting())
    state = StateFile(tmp_path / "state.pt", OPTIONS, resume=False)
    epochs = train(task(), Interrupting(), Interrupting(), SETTINGS[0], state=state)
    next(epochs), next(epochs)  # killed before anything was made of the second epoch
    again, again_history = run(SETTINGS[0], Interrupting(), StateFile(state.path, OPTIONS, resume=True))
    assert list(again) == [2, 3] and again_history == history
    assert all(torch.equal(value, weights[epoch][key]) for epoch in again for key, value in again[epoch].items())


def test_a_stage_that_is_over_is_left_out(tmp_path):
    state = StateFile(tmp_path / "state.pt", OPTIONS, resume=False)
    images = Interrupting()
    list(train(task(), images, images, SETTINGS[0], state=state))
    next(train(task(), images, images, SETTINGS[0], state=state, stage=1))
    state = StateFile(tmp_path / "state.pt", OPTIONS, resume=True)
    assert list(train(task(), images, images, SETTINGS[0], state=state)) == []
    assert [len(history) for history in train(task(), images, images, SETTINGS[0], state=state, stage=1)] == [1, 2, 3]


@pytest.mark.parametrize("settings", [Settings(3, 8, learning_rate=1e38, optimizer="sgd"), Settings(3, 2)], ids=str)
def test_a_loss_that_is_not_finite_stops_the_training(settings):
    trained = task()
    trained.heads[0][-1].bias.data[0] = 0 if settings.learning_rate > 1 else torch.nan
    images = Interrupting()
    step = 2 if settings.learning_rate > 1 else 1
    with pytest.raises(NonFiniteLoss, match=f"epoch 1, step {step}: the loss of the network is not finite"):
        list(train(trained, images, images, settings))


def fails_in_epoch(folder: RunFolder, images: ImageSet, bad: int) -> str:
    """Train with a loss that stops being finite in an epoch; returns what is said."""
    trained, settings = task(), SETTINGS[0]
    epoch = images.epoch
    images.epoch = lambda *arguments, **options: (
        (values * (math.nan if options["epoch"] == bad else 1), labels)
        for values, labels in epoch(*arguments, **options)
    )
    with signals.handled(), pytest.raises(NonFiniteLoss) as raised:
        folder.train(trained, images, Interrupting(), settings, save_frequency=0)
    return str(raised.value)


def test_the_last_good_weights_are_kept(tmp_path):
    options = OPTIONS | {"gpu": -1}
    assert f"kept in {tmp_path / 'model_1.pt'}" in fails_in_epoch(RunFolder(tmp_path, options), Interrupting(), 2)
    assert (tmp_path / "model_1.pt").exists()


def test_where_no_epoch_went_well_nothing_is_kept(tmp_path):
    folder = RunFolder(tmp_path, OPTIONS | {"gpu": -1})
    folder.state.write(detector="a name")  # as detectors do before they are trained
    assert "epoch 1, step 1: " in (said := fails_in_epoch(folder, Interrupting(), 1)) and "no epoch went well" in said
    assert not list(tmp_path.glob("model_*"))


def test_weights_from_within_an_epoch_are_not_kept_as_those_before(tmp_path):
    options = OPTIONS | {"gpu": -1}
    folder = RunFolder(tmp_path, options)
    with signals.handled(), pytest.raises(signals.Interrupted):
        folder.train(task(), Interrupting(4), Interrupting(), SETTINGS[0], save_frequency=1)
    before = (tmp_path / "model_1.pt").read_bytes()
    del folder
    said = fails_in_epoch(RunFolder(tmp_path, options, resume=True), Interrupting(), 2)
    assert f"the checkpoints in {tmp_path} are kept" in said
    assert (tmp_path / "model_1.pt").read_bytes() == before and len(list(tmp_path.glob("model_*"))) == 1


def test_paths_may_be_written_otherwise(tmp_path):
    state = StateFile(tmp_path / "state.pt", OPTIONS | {"save_dir": "a/b"}, resume=False)
    state.write(stage=0)
    assert StateFile(state.path, OPTIONS | {"save_dir": "./a//b/"}, resume=True).content


def test_other_options_are_refused_with_their_difference(tmp_path):
    state = StateFile(tmp_path / "state.pt", OPTIONS, resume=False)
    state.write(stage=0)
    assert StateFile(state.path, OPTIONS | {"gpu": -1, "resume": True}, resume=True).content["stage"] == 0
    with pytest.raises(UserError, match="learning_rate was 0.1, now 0.2"):
        StateFile(state.path, OPTIONS | {"learning_rate": 0.2}, resume=True)
    state.remove()
    assert StateFile(state.path, OPTIONS, resume=True).content == {}


def test_a_state_of_something_else_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    torch.save([1], path)
    with pytest.raises(UserError, match="does not say where a run stands"):
        StateFile(path, OPTIONS, resume=True)
    state = StateFile(path, OPTIONS, resume=False)
    state.write(stage=0, training={"modules": [], "step": 0})
    with pytest.raises(UserError, match="does not fit this run"):
        list(train(task(), Interrupting(), Interrupting(), SETTINGS[0], state=state))
