"""The demo from its first to its last line; slow."""

import pytest


@pytest.mark.slow
def test_demo_writes_its_report(run_script, tmp_path):
    out = run_script("misc/demo.py", tmp_path / "demo", timeout=1200)
    report = tmp_path / "demo" / "report.md"
    assert out.splitlines()[-1] == str(report)
    text = report.read_text()
    for figure in ("accuracy.png", "auroc.png"):
        assert figure in text and (tmp_path / "demo" / figure).read_bytes()[:4] == b"\x89PNG"
    accuracies = [float(word.rstrip("%")) for word in text.split() if word.endswith("%")][:2]
    assert min(accuracies) >= 95
    assert "**Direct matching makes " in text and "far out of distribution" in text
