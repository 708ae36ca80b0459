"""A run: the files that say which one it is, how far it is, and that it is finished.

`config.txt` holds the options, and what the weights of the networks were. It is written last, so a
run that has it is finished. `run.json` says with what the run was made. `resume.pt` is the state to
go on from until then. A run that writes one table has these files beside it (`table.config.txt`,
`table.run.json`, `table.resume.pt`)."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from src.checkpoints import load_tensors, save_tensors
from src.console import note
from src.errors import UserError
from src.files import locked, write_json
from src.results.options import as_written, read_options, refuse_other_options, write_options
from src.results.weights import recorded, warn_of_newer
from src.runtime import provenance


class Run:
    """The files of one run.

    Args:
        options: of the run, as `config.txt` is to hold them.
        prefix: of the names of its files; "" for a run that has the folder for itself.

    Attributes:
        start: when this process began it, for `run.json`; now, unless it is set.
    """

    def __init__(self, folder: str | Path, options: Mapping[str, Any], *, prefix: str = ""):
        self.folder, self.options = Path(folder), dict(options)
        names = ("config.txt", "run.json", "resume.pt")
        self.config, self.made_with, self.state_file = (
            self.folder / f"{prefix}{name}" for name in names
        )
        self.logs = (
            [] if prefix else [self.folder / name for name in ("training_logs.csv", "ft_logs.csv")]
        )
        self.state: dict[str, Any] = {}  # to go on from
        self.start = datetime.now()
        self._lock: IO | None = None

    @classmethod
    def in_folder(cls, folder: str | Path, options: Mapping[str, Any]) -> "Run":
        """Make the run of a folder of its own."""
        return cls(folder, options)

    @classmethod
    def beside(cls, table: str | Path, options: Mapping[str, Any]) -> "Run":
        """Make the run that writes one table."""
        return cls(Path(table).parent, options, prefix=f"{Path(table).stem}.")

    def skip_if_finished(self, *, resume: bool, overwrite: bool = False) -> bool:
        """Return whether a resumed run is finished, so that nothing is left to do; a note says so.

        Args:
            overwrite: finished runs of other options may be overwritten.
        """
        remedy = (
            "give the same ones, or leave out --resume"
            if resume
            else "choose another folder, or give --overwrite"
        )
        if overwrite or not self.is_finished(remedy=remedy):
            return False
        if resume:
            warn_of_newer([(self.config, recorded(read_options(self.config)).values())])
            note(f"{self.config} is of a finished run of these options: nothing is left to do")
            self.discard()
        return resume

    def is_finished(self, *, remedy: str) -> bool:
        """Return whether there is a finished run of these options.

        Args:
            remedy: ends the error.
        """
        if not self.config.exists():
            return False
        refuse_other_options(
            read_options(self.config), as_written(self.options), where=self.config, remedy=remedy
        )
        return True

    def claim(self, *, resume: bool) -> None:
        """Create the folder, keep other processes out until the run ends, and get the state to go
        on from.

        Args:
            resume: go on with an interrupted run. Otherwise its logs, options and state are removed.
        Raises:
            Busy: another process is writing to it.
            UserError: the folder cannot be created, or it holds an interrupted run of other options.
        """
        try:
            self.lock()
            for path in (
                () if resume else (self.config, self.made_with, self.state_file, *self.logs)
            ):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot use {self.folder} as folder of this run: {error.strerror or error}"
            ) from error
        self.state = self.saved() if resume else {}

    def lock(self) -> None:
        """Create the folder, and keep other processes out until `unlock`; raises Busy where another
        one is in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self._lock_file, wait=False)

    def unlock(self) -> None:
        """Let go of the folder."""
        if self._lock:
            self._lock_file.unlink(
                missing_ok=True
            )  # while it is held: afterwards it may be another process's
            self._lock.close()
            self._lock = None

    def begun(self) -> dict[str, Any]:
        """Return the options of the finished or interrupted run that is there; empty where there is
        none."""
        if self.config.exists():
            return read_options(self.config)
        return load_tensors(self.state_file)["options"] if self.state_file.exists() else {}

    def saved(self) -> dict[str, Any]:
        """Return the state of an interrupted run; empty where there is none."""
        if not self.state_file.exists():
            return {}
        state = load_tensors(self.state_file)
        refuse_other_options(state.pop("options"), as_written(self.options), where=self.state_file)
        return state

    def save(self, **changes: Any) -> None:
        """Save the state, after these changes to it."""
        self.state |= changes
        save_tensors(self.state_file, {**self.state, "options": as_written(self.options)})

    def finish(self) -> None:
        """Mark the run as finished, and let go of its folder."""
        self.write_provenance()
        self.mark_as_finished()
        self.discard()

    def write_provenance(self) -> None:
        """Write `run.json`."""
        write_json(self.made_with, provenance(gpu=self.options["gpu"], start=self.start))

    def mark_as_finished(self) -> None:
        """Write `config.txt`, once all other files of the run are on the disk."""
        write_options(self.config, self.options)

    def discard(self) -> None:
        """Remove the state, and let go of the folder."""
        self.state_file.unlink(missing_ok=True)
        self.unlock()

    @property
    def _lock_file(self) -> Path:
        return self.folder / f".{self.state_file.name}.lock"


def new_folder(parent: Path) -> Path:
    """Create a folder named by the time; no two processes get the same one."""
    while True:
        path = Path(parent) / str(datetime.now()).replace(" ", "_").replace(":", "-")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot create {path}: {error.strerror or error}") from error
        return path
