"""A few points of scripts/kill_matrix.py: commands killed at a call that changes files end with the same files."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_matrix.py"


def test_commands_killed_at_half_a_dozen_points_end_with_the_same_files():
    command = [sys.executable, str(SCRIPT), "train", "predict", "shard", "--every", "80", "--start", "17"]
    paths = os.pathsep.join(p for p in [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")] if p)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["train", "predict", "shard"]
    assert all(line.endswith(" points, 0 failures") for line in lines)
