"""A sweep on a Ray cluster of two nodes, one of which is killed in mid-run: it has the figures of the local queue."""

import contextlib
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import environment, run_difference, write_tiny

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]

RUNS = int(os.environ.get("SWEEP", "4"))
"""4, or 12 in `make test-full`: half of them with another learning rate."""
SWEEP = ("sweep", "prune", "--grid", "optimizer.lr=0.1,0.05", "--seeds", RUNS // 2, "--device", "cpu", "--no-latency")
EPOCHS = 24
MEASURED = ("seconds", "latency_ms", "latency_iqr_ms")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one core each; the first one is that of the sweep."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("ray is not installed")
        pytest.skip("ray is not installed: pip install -e '.[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_agent_register_timeout_ms", "300000")
        made = Cluster()
        try:
            node(made, include_dashboard=False)
            yield made
        finally:
            made.shutdown()


def node(cluster: Any, **options: Any) -> Any:
    """A new node with one core. Ray gives up where its agents take 15 seconds to start, as on a busy machine."""
    for _ in range(2):
        with contextlib.suppress(Exception):
            return cluster.add_node(num_cpus=1, **options)
    return cluster.add_node(num_cpus=1, **options)


def started(work: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compressor", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=work, env=environment(), stdout=pipe, stderr=pipe, text=True)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key not in MEASURED} for row in csv.DictReader(file)]


def test_a_sweep_survives_the_loss_of_a_node(cluster: Any, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    text = (tmp_path / "tiny.yaml").read_text()
    (tmp_path / "tiny.yaml").write_text(
        text.replace("epochs: 4", f"epochs: {EPOCHS}").replace("batch: 64", "batch: 16")
    )
    second = node(cluster)
    sweep = tmp_path / "swept"
    with started(tmp_path, *SWEEP, "--on", f"ray:{cluster.address}", "--out", "swept") as running:
        begun = list[Path]()
        while running.poll() is None and len(begun) < 2:
            time.sleep(0.05)
            # What is there has come from a node: a run that has begun and not ended on each.
            begun = [
                path.parent for path in sweep.glob("*/checkpoint.pt") if not (path.parent / "figures.json").exists()
            ]
        cluster.remove_node(second, allow_graceful=False)
        _, err = running.communicate(timeout=1500)
    assert running.returncode == 0, err
    assert len(rows(sweep)) == RUNS
    resumed = [path.parent.name for path in sweep.glob("*/log.txt") if "continuing in epoch" in path.read_text()]
    assert len(resumed) == 1, "the run of the lost node, which went on from its last checkpoint"
    assert resumed[0] in [path.name for path in begun]
    assert not list(sweep.glob("*/.lock")), "the runs were trained in other folders"

    with started(tmp_path, *SWEEP, "--jobs", 2, "--out", "local") as running:
        _, err = running.communicate(timeout=1500)
    assert running.returncode == 0, err
    local = tmp_path / "local"
    assert rows(sweep) == rows(local)
    assert {row["status"] for row in rows(local)} == {"finished"}
    assert [run_difference(sweep / row["run"], local / row["run"]) for row in rows(local)] == [None] * RUNS
