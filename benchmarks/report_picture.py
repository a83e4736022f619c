"""The picture of a report in README.md: `python -m benchmarks.report_picture docs/report.png`.

Trains LeNet-5 on the digits, dense and pruned, and takes the upper part of report.html as Chromium shows it.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH = 1160
COLOURS = 256
"""The picture has so few that fewer are not seen, and the file is a third as large."""


def train(folder: Path) -> Path:
    """Return the folder of a pruned run that is compared with a dense one."""
    dense, pruned = folder / "dense", folder / "lenet5_agp"
    command = [sys.executable, "-m", "compressor", "train", "--config", "lenet5_digits"]
    subprocess.run([*command, "--out", dense], check=True)
    subprocess.run(
        [*command, "--schedule", "lenet5_agp", "--out", pruned, "--set", f"report.reference={dense}"], check=True
    )
    return pruned


def picture(page: Path) -> bytes:
    """Return a page up to the end of its curves as PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(page.absolute().as_uri())
        end = view.locator("#training figure").bounding_box()
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end["y"] + end["height"] + 8}
        taken: bytes = view.screenshot(full_page=True, clip=clip)
        browser.close()
    made = io.BytesIO()
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        made, "PNG", optimize=True
    )
    return made.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--run", type=Path, help="the folder of a run; default: two runs are trained")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or train(Path(folder))
        given.file.write_bytes(picture(run / "report.html"))
    print(f"{given.file}: {given.file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
