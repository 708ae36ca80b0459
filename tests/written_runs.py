"""Folders of stitching runs as the scripts write them, with predictions and evaluations of
choice."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from src.core.values import Pair, SkillEstimate, StitchSkill
from src.results.stitches import (
    GRID,
    EvaluationFiles,
    Stitch,
    by_detector,
    columns_of,
    columns_of_skill,
    read_stitches,
    with_evaluations,
)
from src.results.tables import EVALUATIONS, write_table
from tests import result_rows
from tests.commands import pair_of

N, N_CLASSES = 1000, 10
LABELS = np.arange(N) % N_CLASSES
SKILL = StitchSkill(
    SkillEstimate(0.75, 0.5, 0.5, 0.45, 0.55),
    SkillEstimate(0.8, 0.5, 0.6, 0.55, 0.65),
    N,
    10,
    64,
    1,
    50.0,
)
OPTIONS = result_rows.OPTIONS | {
    "front_model_path": "f.pt",
    "end_model_path": "g.pt",
    "front_layer": "x",
    "end_layer": "y",
    "init": "pinv",
    "n_epochs": 0,
    "objective": "task",
    "gpu": -1,
}
METRICS = {
    "front_accuracy": 0.9,
    "kappa": 0.5,
    "agreement": 0.75,
    "matching_error": None,
    "representation_difference": 0.25,
    "n_images": N,
}


def predicted(n_right: int) -> np.ndarray:
    """Right on the first images, and on the others the next class."""
    return np.where(np.arange(N) < n_right, LABELS, (LABELS + 1) % N_CLASSES)


def write_run(
    folder: Path, name: str, *, n_right: int, n_end_right: int = 950, metrics=(), **options
) -> Path:
    """A finished run whose stitch and end network are right on so many test images."""
    path = folder / f"2025-01-01_00-00-00.{name}"
    path.mkdir(parents=True)
    measured = METRICS | {"accuracy": n_right / N, "end_accuracy": n_end_right / N} | dict(metrics)
    layers = {name: (OPTIONS | options)[name] for name in Pair._fields}
    record = {**columns_of(OPTIONS | options), **layers, **measured, "folder": name}
    write_table(path / "grid.csv", GRID, [record])
    arrays = {
        "stitched": predicted(n_right),
        "end": predicted(n_end_right),
        "front": LABELS,
        "labels": LABELS,
    }
    np.savez_compressed(
        path / "predictions.npz", **{k: v.astype(np.int16) for k, v in arrays.items()}
    )
    (path / "config.txt").write_text(json.dumps(OPTIONS | options))
    return path


def write_pairs(
    folder: Path,
    types: Mapping[str, str],
    layers: Mapping[str, Mapping[str, float]],
    n_right: Callable[[str, str, str, str], int],
) -> list[str]:
    """Stitches of all pairs of layers of all pairs of networks, in folders FRONT-END; returns their
    names.

    Args:
        types: the type of each network.
        layers: the relative depths of the layers of each type.
        n_right: takes the names of both networks and of both layers.
    """
    names = []
    for front, end in itertools.permutations(types, 2):
        names.append(f"{front}-{end}")
        pairs = itertools.product(layers[types[front]], layers[types[end]])
        for number, (front_layer, end_layer) in enumerate(pairs):
            options = {"front_layer": front_layer, "end_layer": end_layer}
            depths = {}
            for side, name in (("front", front), ("end", end)):
                options |= {f"{side}_model_path": f"{name}.pt", f"{side}_model_type": types[name]}
                of_type = layers[types[name]]
                layer = options[f"{side}_layer"]
                depths[f"{side}_depth"] = list(of_type).index(layer)
                depths[f"{side}_relative_depth"] = of_type[layer]
            n = n_right(front, end, front_layer, end_layer)
            write_run(folder / names[-1], f"{number}", n_right=n, metrics=depths, **options)
    return names


def write_list(path: Path, types: Mapping[str, str], **columns: Mapping[str, str]) -> None:
    """A list of networks, and a file NAME.pt for each; further columns are values by network."""
    lines = [",".join(["name", "path", "type", *columns])]
    for name, kind in types.items():
        (path.parent / f"{name}.pt").write_text(name)
        values = [f'"{column[name]}"' for column in columns.values()]
        lines.append(",".join([name, f"{name}.pt", kind, *values]))
    path.write_text("\n".join(lines))


def write_evaluation(
    folder: Path,
    aurocs: dict[str, float],
    *,
    detector: str = "energy",
    skill: StitchSkill = SKILL,
) -> None:
    """The evaluation of runs by a detector: AUROCs with intervals of ± 0.01, and one skill for all of
    them; what other detectors measured stays."""
    rows = []
    earlier = {row["folder"]: row for row in EvaluationFiles(folder).read()}
    for run, auroc in aurocs.items():
        name = f"2025-01-01_00-00-00.{run}"
        row = result_rows.evaluation_row(
            auroc=auroc,
            auroc_low=auroc - 0.01,
            auroc_high=auroc + 0.01,
            detector=detector,
            folder=name,
            **layers_in(folder, name)._asdict(),
            **columns_of_skill(skill),
        )
        for of_detector in by_detector(earlier.get(name, {})).values():
            row = of_detector | row
        rows.append(row)
    write_table(EvaluationFiles(folder).table, EVALUATIONS, rows)


def layers_in(folder: Path, name: str) -> Pair:
    """The layers of a run."""
    return Pair(*pair_of(folder / name))


def skill(output: float, at_end: float = 0.5) -> StitchSkill:
    """A skill with baselines of 0.5 and intervals of ± 0.05."""
    places = [
        SkillEstimate((1 + value) / 2, 0.5, value, value - 0.05, min(1, value + 0.05))
        for value in (at_end, output)
    ]
    return StitchSkill(*places, N, 10, 64, 1, 50.0)


def write_skill(folder: Path, skill_of_run: Mapping[str, StitchSkill]) -> None:
    """The skill of runs; other runs, and what detectors measured, keep what they have."""
    rows = {row["folder"]: row for row in EvaluationFiles(folder).read()}
    for run, skill in skill_of_run.items():
        name = f"2025-01-01_00-00-00.{run}"
        layers = layers_in(folder, name)._asdict()
        rows[name] = rows.get(name, {}) | {"folder": name, **layers, **columns_of_skill(skill)}
    write_table(EvaluationFiles(folder).table, EVALUATIONS, rows.values())


def runs_of(folder: Path) -> list[Stitch]:
    """The runs of a folder with their evaluations."""
    runs, skipped = read_stitches(folder)
    assert not skipped
    return with_evaluations(runs)
