"""Files by path or by bare name: in the working folder, below schedules/ or configs/, in the package."""

from pathlib import Path

import pytest

from compressor.errors import UserError
from compressor.lookup import find, shipped


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "schedules" / "sub").mkdir(parents=True)
    (tmp_path / "schedules" / "mine.yaml").touch()
    (tmp_path / "schedules" / "sub" / "deep.yml").touch()
    (tmp_path / "here.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("here.yaml", "here.yaml"),
        ("here", "here.yaml"),
        ("./here", "here.yaml"),
        ("mine", "schedules/mine.yaml"),
        ("mine.yaml", "schedules/mine.yaml"),
        ("schedules/mine.yaml", "schedules/mine.yaml"),
        ("sub/deep", "schedules/sub/deep.yml"),
    ],
)
def test_a_path_or_a_bare_name_is_found_below_the_working_folder(name: str, path: str) -> None:
    assert find(name, "schedules") == Path(path)


@pytest.mark.usefixtures("_elsewhere")
def test_what_is_shipped_is_found_from_anywhere_and_ones_own_file_comes_first() -> None:
    assert find("lenet5_agp", "schedules") == shipped("schedules") / "lenet5_agp.yaml"
    assert find("lenet5_mnist", "configs") == shipped("configs") / "lenet5_mnist.yaml"
    Path("lenet5_agp.yaml").touch()
    assert find("lenet5_agp", "schedules") == Path("lenet5_agp.yaml")


@pytest.mark.usefixtures("_elsewhere")
def test_a_name_that_is_nowhere_is_an_error_with_the_nearest_one_and_where_it_was_sought() -> None:
    with pytest.raises(UserError) as caught:
        find("minee", "schedules")
    assert str(caught.value).startswith("no schedule 'minee' in ")
    assert str(caught.value).endswith("did you mean 'mine'?")
    assert str(Path("schedules").absolute()) in str(caught.value)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "schedules", "..", "\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_too(name: str) -> None:
    with pytest.raises(UserError, match="no schedule"):
        find(name, "schedules")
