"""Real data where it lies beside the repository, and small image files made on the spot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def real() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    if not (SHARED / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data in {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def _no_default_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on where it is started or on the caller's COMPRESS_DATA."""
    monkeypatch.delenv("COMPRESS_DATA", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    """`folders(train={"cat": 3, ...}, test={...}, size=(w, h))`: random PNGs in <root>/<split>/<class>/NNN.png."""

    def make(size: tuple[int, int] = (8, 8), **splits: dict[str, int]) -> Path:
        random = np.random.default_rng(0)
        root = tmp_path / "set"
        for split, classes in splits.items():
            for name, count in classes.items():
                (root / split / name).mkdir(parents=True, exist_ok=True)
                for k in range(count):
                    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / split / name / f"{k:03d}.png")
        return root

    return make
