"""The built wheel, installed in an environment of its own and used from an empty folder; the sdist and its tests."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import environment

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT, cwd=out)
    [path] = out.glob("*.whl")
    return path


def test_the_sdist_has_its_tests_and_all_that_they_need(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    [path] = tmp_path.glob("*.tar.gz")
    run("tar", "-xf", path, cwd=tmp_path)  # tarfile has no filter before Python 3.11.4, and warns without one later
    source = tmp_path / path.name.removesuffix(".tar.gz")
    for kind in ("benchmarks", "compressor", "configs", "docs", "schedules", "tests", ".ci"):
        ours = {path.relative_to(ROOT) for path in (ROOT / kind).rglob("*") if path.is_file()}
        ours = {path for path in ours if not {"__pycache__", "shipped"} & set(path.parts)}
        assert ours
        assert {path for path in ours if not (source / path).is_file()} == set()
    brief = ("tests/test_readme.py", "tests/test_lookup.py", "tests/test_shipped_claims.py", "tests/test_packaging.py")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", cwd=source)
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *brief, cwd=source)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel in it; torch and the like are those of this environment."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    [packages] = home.glob("lib/python*/site-packages")
    # Behind its own packages, and without our editable install: nested .pth files are not followed.
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin"


def run(*command: object, cwd: Path) -> str:
    """Run a program that has to succeed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_every_schedule_and_config_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("schedules", "configs"):
        ours = {path.relative_to(ROOT / kind).as_posix() for path in (ROOT / kind).rglob("*") if path.is_file()}
        assert ours
        assert ours == {name.partition(f"/{kind}/")[2] for name in names if f"/{kind}/" in name}
    assert {name.partition("/")[0] for name in names} == {"compressor", f"compressor-{version('compressor')}.dist-info"}
    assert "compressor/py.typed" in names
    assert any(name.endswith("/LICENSE") for name in names)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "compressor").rglob("*.py")}
    assert modules <= set(names)


def test_the_installed_command_works_from_an_empty_folder_by_bare_names(installed: Path, work: Path) -> None:
    for path in work.iterdir():
        path.unlink()
    where = run(installed / "python", "-c", "import compressor; print(compressor.__file__)", cwd=work)
    assert Path(where.strip()).is_relative_to(installed.parent)
    compress = installed / "compress"
    assert run(compress, "--version", cwd=work).split()[-1] == version("compressor")
    assert "valid" in run(compress, "validate", "lenet5_agp", cwd=work)
    assert "valid" in run(compress, "validate", "lenet5_agp", "-c", "lenet5_digits", cwd=work)
    short = ["--set", "epochs=1", "--set", "schedule.policies=[{pruner: {instance_name: gradual}}]"]
    out = run(compress, "train", "-s", "lenet5_agp", "-c", "lenet5_digits", *short, cwd=work)
    assert "runs/lenet5_agp-lenet5_digits-1" in out
    table = run(compress, "report", "runs/lenet5_agp-lenet5_digits-1", cwd=work)
    # LeNet-5-Caffe has 430,500 weights, 90 % of which go: floor(.9 * 500), (25,000), (400,000), (5,000)
    assert "430,500" in table
    assert "43,050" in table
