"""The section that launch/gpu_report.sh writes: everything that was measured, and what was not."""

import json
import os
from pathlib import Path
import subprocess

import pytest

from foley_jax.bench import gpu_report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    about = {
        "kind": "NVIDIA H100 80GB HBM3",
        "count": 1,
        "memory_bytes": 60 * 2**30,
        "driver": "570.1",
        "versions": {"jax": "0.10.2"},
    }
    (tmp_path / "device.json").write_text(json.dumps(about))
    return tmp_path


def test_nothing_but_the_device(folder):
    (folder / "steps.txt").write_text("ldm_train: failed or took longer than 120 s\n")
    text = gpu_report.section(folder)
    assert text.startswith("On 1 x NVIDIA H100 80GB HBM3, 60.0 GiB for JAX, driver 570.1; jax 0.10")
    for missing in ("were not compared", "Memory was not", "No case was timed", "- ldm_train: fai"):
        assert missing in text


def test_outputs_and_memory(folder):
    line = {"network": "U-Net", "worst": 3e-4, "mean": 1e-5, "seconds": 1.0}
    lines = [
        {**line, "dtype": "float32", "limit": 2e-4, "good": False},
        {**line, "dtype": "bfloat16", "limit": 5e-2, "good": True},
    ]
    (folder / "goldens.json").write_text(json.dumps(lines))
    memory = {"config": "configs/ldm.py", "batch": 64, "predicted": 2**31, "compiler": 2**30}
    (folder / "memory.json").write_text(json.dumps({**memory, "seen": None}))
    text = gpu_report.section(folder)
    assert "| U-Net | float32 | 3.0e-04 | 1.0e-05 | 2e-04 | **beyond** |" in text
    assert "| U-Net | bfloat16 | 3.0e-04 | 1.0e-05 | 5e-02 | good |" in text
    assert "batch 64: predicted 2.00 GiB, compiler here 1.00 GiB, seen: not known." in text


def test_the_section_is_put_before_the_limits_and_then_replaced():
    readme = "# Speed\n\ntext\n\n## Limits\n\n* none\n"
    first = gpu_report.written(readme, "FIRST")
    assert first.index("text") < first.index("FIRST") < first.index("## Limits")
    second = gpu_report.written(first, "SECOND")
    assert second == first.replace("FIRST", "SECOND")
    assert second.endswith("\n## Limits\n\n* none\n")
    with pytest.raises(ValueError, match="expected both or none"):
        gpu_report.written(readme + gpu_report.BEGIN, "three")


def test_the_script_says_what_it_would_do(tmp_path):
    command = ["bash", str(ROOT / "launch" / "gpu_report.sh"), "--dry-run"]
    env = {**os.environ, "OUT": str(tmp_path / "out")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    for part in ("tests/device_goldens.py --out", "ldm_sample --size=paper --dtype=bfloat16"):
        assert part in done.stderr
    assert "--readme=foley_jax/bench/README.md" in done.stderr
    assert not (tmp_path / "out").exists()
