"""The demo from its first to its last line; slow."""

import csv

import pytest


@pytest.mark.slow
def test_demo_writes_its_report(run_script, tmp_path):
    out = run_script("misc/demo.py", tmp_path / "demo", timeout=1200)
    report = tmp_path / "demo" / "report.md"
    assert out.splitlines()[-1] == str(report)
    text = report.read_text()
    for figure in ("accuracy.png", "auroc.png", "objectives.png", "similarity.png", "sensitivity.png"):
        assert figure in text and (tmp_path / "demo" / figure).read_bytes()[:4] == b"\x89PNG"
    accuracies = [float(word.rstrip("%")) for word in text.split() if word.endswith("%")][:2]
    assert min(accuracies) >= 95
    assert "**Direct matching makes " in text and "far out of distribution" in text
    assert "these stay nearer to the distribution: " in text and " by functional latent alignment" in text
    assert "**The layer of the same name comes first by linear CKA " in text
    with open(tmp_path / "demo" / "statistics.csv") as file:
        rows = list(csv.DictReader(file))
    measures = {"cka", "pwcca", "procrustes", "stitching accuracy"}
    for test in ("sensitivity", "specificity"):
        assert measures <= {row["measure"] for row in rows if row["test"] == test}
