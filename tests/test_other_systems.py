"""Other systems than the Linux of most tests: other start methods, no calls that Linux alone has,
nothing global."""

import os
import subprocess
import sys

import pytest

from tests.commands import ROOT, names_in


def run_module(name: str, *arguments: str, cwd) -> str:
    """Run a module of the tests as a process; returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", f"tests.{name}", *arguments]
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("method", "of_workers"),
    [
        pytest.param("fork", "forkserver", marks=pytest.mark.slow),
        ("forkserver", "forkserver"),
        pytest.param("spawn", "spawn", marks=pytest.mark.slow),
    ],
)
def test_scripts_read_images_from_files_without_linux(method, of_workers, tmp_path):
    methods = run_module("on_another_system", method, cwd=tmp_path).split()
    assert len(methods) >= 6 and set(methods) == {of_workers}
    assert "model_1.pt" in names_in(tmp_path / "m")
    assert len(list(tmp_path.glob("results/stitch/*/metrics.json"))) == 1
    assert (tmp_path / "results" / "all" / "similarity" / "a-b.csv").exists()


def test_importing_changes_nothing_global(tmp_path):
    run_module("import_everything", cwd=tmp_path)
