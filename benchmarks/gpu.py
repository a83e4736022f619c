"""One prepared script for a machine with one GPU, at most eight minutes: `PYTHON=python3 GPU_FILES=folder make gpu`.

    python -m benchmarks.gpu [--files FOLDER] [--out FOLDER] [--only ROW,ROW] [--smoke]

Such a machine may have no network and other versions of Python and torch: nothing is installed. GPU_FILES is a folder
with what it lacks: `cifar10-jpeg.tar.gz`, and wheels of packages that it does not have, which are unpacked into a
temporary folder. Each row has its seconds; a figure is written to OUT/gpu.json and OUT/gpu.md as soon as it is known,
so that what was finished stays when the script is cut off. A row that failed before, or was cut off, is named there.
`--smoke` tries all rows here, on the CPU if need be, with next to no work. Copy gpu.json to docs/measured/, and
`python -m benchmarks.gpu --page` writes the table in docs/benchmarks.md.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins: products have the same bits
ROOT = Path(__file__).resolve().parents[1]
MARKS = "<!-- make gpu -->", "<!-- end of make gpu -->"
SECONDS = {
    "placement": 95,
    "settings": 85,
    "step": 60,
    "throughput": 20,
    "two-of-four": 15,
    "decode": 35,
    "dense": 36,
    "agp-90": 36,
    "filters-50": 36,
    "l0": 36,
}
"""What each row may take; what the rows before them did not use, the trainings share."""
WHOLE = 455
TRAININGS = ("dense", "agp-90", "filters-50", "l0")
TITLES = {
    "placement": "every component on the device, and resumed there",
    "settings": "bf16, channels_last, torch.compile",
    "step": "a training step beside the bare loop, CUDA events",
    "throughput": "the trainer beside a bare loop over the same images",
    "two-of-four": "2:4 semi-structured products beside dense ones, bf16",
    "decode": "CIFAR-10 (JPEG), decoded once onto the device; an epoch of ResNet-20",
    "dense": "ResNet-20, CIFAR-10 (JPEG): dense",
    "agp-90": "ResNet-20, CIFAR-10 (JPEG): AGP to 90 %",
    "filters-50": "ResNet-20, CIFAR-10 (JPEG): half of the filters within blocks",
    "l0": "ResNet-20, CIFAR-10 (JPEG): L0 gates on the filters within blocks",
}


def unpack(files: Path) -> None:
    """Make the wheels of a folder importable, after what is installed."""
    wheels = sorted(files.rglob("*.whl"))
    if not wheels:
        return
    folder = tempfile.mkdtemp(prefix="compressor-wheels-")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    sys.path.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))


class CutOff(Exception):
    """Raised in a row whose seconds are over."""


def _over(number: int, frame: FrameType | None) -> None:
    raise CutOff


class Results:
    """The rows so far; every figure is on disk as soon as it is known."""

    def __init__(self, out: Path, *, smoke: bool) -> None:
        from benchmarks import recorded

        self._recorded, self._out, self._smoke = recorded, out, smoke
        self.rows: dict[str, dict[str, Any]] = {}
        self._began = time.monotonic()

    def limit(self, key: str) -> float:
        """Return the seconds that a row may take from now on."""
        if self._smoke:
            return 3600.0
        if key not in TRAININGS:
            return SECONDS[key]
        to_come = len(TRAININGS) - TRAININGS.index(key)
        return max(SECONDS[key], (self._began + WHOLE - time.monotonic()) / to_come)

    def run(self, key: str, figures: Callable[[], Iterator[Any]]) -> str:
        """Run one row within its seconds; return why it ended early, empty where it did not."""
        began, found, why = time.monotonic(), [], ""
        limit = self.limit(key)
        signal.signal(signal.SIGALRM, _over)
        signal.setitimer(signal.ITIMER_REAL, limit)
        print(f"{key}: {TITLES[key]}", flush=True)
        try:
            for figure in figures():
                found.append(figure)
                print(f"  {figure.what:60} {figure.value:12.4f} {figure.unit:10} {figure.note}", flush=True)
                self._write(key, found, began, [])
        except CutOff:
            why = f"cut off after {limit:.3g} s"
        except Exception as error:  # the other rows run all the same
            why = f"failed: {type(error).__name__}: {str(error)[:300]}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if why:
            print(f"  {why}", flush=True)
        self._write(key, found, began, [why] if why else [])
        return why

    def _write(self, key: str, figures: list[Any], began: float, left_out: list[str]) -> None:
        made = self._recorded.row(figures, left_out, time.monotonic() - began, None, quick=self._smoke)
        self.rows[key] = made
        self._recorded.write(self._out / "gpu.json", self.rows)
        text = self._recorded.table(self.rows, TITLES, {})
        (self._out / "gpu.md").write_text(text + "\n", encoding="utf-8")


def page() -> None:
    """Write the table of docs/measured/gpu.json into docs/benchmarks.md."""
    from benchmarks import recorded

    path = ROOT / "docs" / "benchmarks.md"
    rows = recorded.read(ROOT / "docs" / "measured" / "gpu.json")
    path.write_text(recorded.between(path, MARKS, recorded.table(rows, TITLES, {})), encoding="utf-8")


def main() -> None:
    """Run the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, default=Path(os.environ.get("GPU_FILES") or "../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", default="", help="rows, with commas")
    parser.add_argument("--smoke", action="store_true", help="next to no work, on the CPU where there is no GPU")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md from docs/measured/gpu.json")
    given = parser.parse_args()
    unpack(given.files)
    if given.page:
        page()
        return
    wanted = [key for key in given.only.split(",") if key] or list(SECONDS)
    unknown = [key for key in wanted if key not in SECONDS]
    if unknown:
        sys.exit(f"error: there is no row {unknown[0]!r}: there are {', '.join(SECONDS)}")
    import torch

    if not torch.cuda.is_available() and not given.smoke:
        sys.exit("error: torch sees no CUDA device here: try the script with SMOKE=1")
    given.out.mkdir(parents=True, exist_ok=True)
    from benchmarks.gpu_rows import Rows

    results = Results(given.out, smoke=given.smoke)
    work = Path(tempfile.mkdtemp(prefix="compressor-gpu-"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = Rows(device, given.files.resolve(), work, results.limit, smoke=given.smoke)
    try:
        failed = [key for key in wanted if "failed" in results.run(key, rows.of(key))]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{len(results.rows)} rows are in {given.out / 'gpu.json'}; the table is gpu.md beside it")
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
