"""Whatever goes wrong: the exit code, one clear message on stderr, no traceback, no folder left behind."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import Result, compress, process, saved, succeed, write_tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a network with 16 hidden units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        write_tiny(Path())
        succeed("train", "-c", "tiny", "--set", "epochs=1", "--set", "model.dropout=null", "--out", "run")
        return (Path() / "run").absolute()


def refused(result: Result, *words: str, code: int = 2) -> None:
    """One message with all the `words` on stderr, and no run that it would have come from."""
    assert (result.code, result.out.strip()) == (code, "")
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    assert result.err.lower().count("error: ") == 1
    for word in words:
        assert word in result.err
    assert not Path("runs").exists()


TRAIN = ("train", "-s", "prune")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "-s", "lenet5_apg"], ["'lenet5_apg'", "did you mean 'lenet5_agp'"]),
        (["train", "-c", "lenet5_digit"], ["'lenet5_digit'", "did you mean 'lenet5_digits'"]),
        (["train", "-s", "prune", "-c", "lenet5_mnits"], ["did you mean 'lenet5_mnist'"]),
        (["train", "-s", "prune/\0"], ["prune/"]),
        (["train", "-s", "x" * 5000], ["no schedule"]),
        (["train"], ["no configuration", "--config"]),
        ([*TRAIN, "--bogus"], ["--bogus"]),
        ([*TRAIN, "--device", "tpu"], ["'tpu'", "--device takes auto, cpu"]),
        ([*TRAIN, "--seed", "-1"], ["--seed", "-1"]),
        ([*TRAIN, "--seed", "one"], ["--seed", "one"]),
        ([*TRAIN, "extra"], ["extra"]),
        ([*TRAIN, "--set", "data.batch"], ["--set", "data.batch", "optimizer.lr=0.01"]),
        ([*TRAIN, "--set", "=3"], ["--set", "=3"]),
        ([*TRAIN, "--set", "epoch=3"], ["--set epoch=3", "'epoch'", "did you mean 'epochs'"]),
        ([*TRAIN, "--set", "data.bach=3"], ["--set data.bach=3", "did you mean 'batch'"]),
        ([*TRAIN, "--set", "model.hiden=[8]"], ["hiden", "hidden"]),
        ([*TRAIN, "--set", "epochs=many"], ["--set epochs=many", "epochs", "integer"]),
        ([*TRAIN, "--set", "epochs=0"], ["--set epochs=0", "epochs", "1"]),
        ([*TRAIN, "--set", "optimizer.lr=.nan"], ["--set optimizer.lr=.nan: '.nan' is not a finite number"]),
        ([*TRAIN, "--set", "data.batch=[1"], ["data.batch=[1", "YAML"]),
        ([*TRAIN, "--set", "model.hidden.7=3"], ["model.hidden.7=3", "7"]),
        ([*TRAIN, "--set", "schedule.polices=[]"], ["schedule.polices=[]", "did you mean 'policies'"]),
        ([*TRAIN, "--set", "schedule.pruners.fine.final_sparsity=1.5"], ["final_sparsity=1.5", "1"]),
        (["train", "-c", "tiny", "--set", "schedule.version=2"], ["schedule", "--schedule"]),
        ([*TRAIN, "--set", "data.name=digit"], ["'digit'", "did you mean 'digits'"]),
        ([*TRAIN, "--set", "model={name: resnet20_cifr}"], ["'resnet20_cifr'", "resnet20_cifar"]),
        ([*TRAIN, "--set", "schedule.regularizers.shrink.reg_regims={fc9.weight: 1e-4}"], ["fc9.weight", "fc1.weight"]),
        ([*TRAIN, "--set", "model={name: lenet_5}"], ["lenet_5", "1x8x8"]),
        ([*TRAIN, "--init", "nowhere.pt"], ["nowhere.pt"]),
        (["train", "-c", "tiny", "--set", "model.num_classes=7"], ["model.num_classes", "7", "10"]),
        (["eval"], ["CHECKPOINT"]),
        (["eval", "nowhere.pt"], ["nowhere.pt", "no such"]),
        (["report", "nowhere"], ["nowhere", "no such"]),
        (["report", "."], ["checkpoint.pt"]),
        (["validate"], ["SCHEDULE"]),
        (["frobnicate"], ["frobnicate"]),
        (["trian"], ["trian"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) and value[0] in "train eval validate" else "",
)
def test_what_the_user_must_correct_is_exit_2_and_one_message_that_names_it(
    arguments: list[str], words: list[str]
) -> None:
    refused(compress(*arguments), *words)


def test_a_value_set_below_a_scalar_is_refused(work: Path) -> None:
    refused(compress(*TRAIN, "--set", "optimizer.lr.x=3"), "--set optimizer.lr.x=3", "lr")
    refused(compress(*TRAIN, "--set", "epochs.foo=3"), "--set epochs.foo=3", "epochs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 2\npolicies: [\n", ["bad.yaml:3:1", "YAML"]),
        ("a: 1\n b: 2\n", ["bad.yaml:2:", "YAML"]),
        ("", ["bad.yaml:1:1", "empty"]),
        ("- 1\n", ["bad.yaml:1:1", "mapping"]),
        ("version: 2\npolicies:\n  - !!python/object/apply:os.system ['true']\n", ["bad.yaml:3:5", "tag"]),
        ("version: 2\nversion: 2\npolicies: []\n", ["bad.yaml:2:1", "'version'", "twice"]),
        ("version: 2\nconfig: tiny\npruner: {}\npolicies: [{lr_scheduler: {class: StepLR, step_size: 1}}]\n",
         ["bad.yaml:3:1", "did you mean 'pruners'"]),
    ],
)  # fmt: skip
def test_bad_yaml_is_refused_with_line_and_column(work: Path, text: str, words: list[str]) -> None:
    (work / "bad.yaml").write_text(text)
    refused(compress("train", "-s", "bad", "-c", "tiny"), *words)
    result = compress("validate", "bad.yaml")
    assert result.code == 2
    assert all(word in result.err for word in words)
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (3, "optimzer: {lr: 0.1}", ["bad.yaml:3:1", "'optimizer'"]),
        (2, "data: {name: digits, btch: 3}", ["bad.yaml:2:22", "'batch'"]),
        (3, "optimizer: {lr: fast}", ["bad.yaml:3:17", "'lr'", "fast"]),
        (4, "", ["bad.yaml", "'epochs'"]),
        (4, "epochs: [", ["bad.yaml:5:1", "YAML"]),
        (4, "epochs: 3\nepochs: 3", ["bad.yaml:5:1", "'epochs'", "twice"]),
    ],
)
def test_a_bad_configuration_is_refused_with_line_and_hint(work: Path, line: int, text: str, words: list[str]) -> None:
    lines = ["model: {name: mlp}", "data: {name: digits}", "optimizer: {lr: 0.1}", "epochs: 3"]
    lines[line - 1] = text
    (work / "bad.yaml").write_text("\n".join(lines) + "\n")
    refused(compress("train", "-c", "bad"), *words)


def test_all_faults_of_a_file_are_told_at_once(work: Path) -> None:
    (work / "bad.yaml").write_text(
        "model: {name: mlp}\ndata: {name: digits, btch: 3}\noptimizer: {lr: fast}\nepochs: 0\n"
    )
    result = compress("train", "-c", "bad")
    assert result.code == 2
    assert [place in result.err for place in ("bad.yaml:2:", "bad.yaml:3:", "bad.yaml:4:")] == [True] * 3


def test_a_file_that_is_no_text_is_refused(work: Path) -> None:
    (work / "bad.yaml").write_bytes(b"version: 2\n\xff\xfe\n")
    refused(compress("train", "-s", "bad"), "bad.yaml:2:1", "UTF-8")


@pytest.mark.parametrize("flag", [True, False])
def test_a_missing_data_set_says_where_it_looked_and_how_to_get_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, flag: bool
) -> None:
    if not flag:
        monkeypatch.setenv("COMPRESS_DATA", str(work / "pictures"))
    arguments = ["--data", work / "pictures"] if flag else []
    result = compress("train", "-c", "lenet5_mnist", *arguments)
    refused(result, str(work / "pictures" / "MNIST" / "raw"), "--data", "COMPRESS_DATA", "torchvision", "download")


def test_eval_without_the_data_set_says_where_it_looked(trained: Path, work: Path) -> None:
    checkpoint = saved(trained / "checkpoint.pt")
    checkpoint["config"]["data"]["name"] = "mnist"
    torch.save(checkpoint, work / "moved.pt")
    refused(compress("eval", "moved.pt"), str(work / "data" / "MNIST" / "raw"), "--data")


FOREIGN = ("torn", "empty", "text", "yaml", "tensor", "dict", "pickle")


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, trained: Path, work: Path) -> Path:
    """A file that is no checkpoint of ours."""
    path = work / "foreign.pt"
    whole = (trained / "checkpoint.pt").read_bytes()
    match request.param:
        case "torn":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.touch()
        case "text":
            path.write_text("hello\n")
        case "yaml":
            shutil.copy("tiny.yaml", path)
        case "tensor":
            torch.save(torch.ones(3), path)
        case "dict":
            torch.save({"state_dict": {"fc1.weight": torch.ones(3)}}, path)
        case "pickle":
            torch.save({"model": Path("/")}, path)  # an object that a safe loader must not make
    return path


def test_eval_report_and_init_refuse_a_torn_or_foreign_checkpoint(foreign: Path) -> None:
    refused(compress("eval", foreign), "foreign.pt")
    refused(compress("report", foreign), "foreign.pt")
    refused(compress(*TRAIN, "--init", foreign), "foreign.pt")


@pytest.mark.parametrize("entry", ["model", "config", "shape", "classes"])
def test_a_checkpoint_with_a_damaged_entry_is_refused(trained: Path, work: Path, entry: str) -> None:
    checkpoint = saved(trained / "checkpoint.pt")
    torch.save({**checkpoint, entry: 3}, work / "damaged.pt")
    refused(compress("report", "damaged.pt"), "damaged.pt")
    refused(compress("eval", "damaged.pt"), "damaged.pt")


def test_init_of_another_architecture_names_what_does_not_fit(trained: Path) -> None:
    result = compress(*TRAIN, "--set", "model.hidden=[8]", "--init", trained / "checkpoint.pt")
    refused(result, "checkpoint.pt", "fc1.weight", "(16, 64)", "(8, 64)")
    deeper = ["--set", "model={name: mlp, hidden: [16, 16], inputs: 64}"]
    result = compress(*TRAIN, *deeper, "--init", trained / "best.pt")
    refused(result, "best.pt", "fc3.weight")


def test_an_out_folder_that_exists_is_not_overwritten(work: Path) -> None:
    (work / "mine").mkdir()
    (work / "mine" / "thesis.tex").write_text("years of work")
    refused(compress(*TRAIN, "--out", "mine"), "mine", "exists")
    assert [path.name for path in (work / "mine").iterdir()] == ["thesis.tex"]
    refused(compress(*TRAIN, "--out", "tiny.yaml"), "tiny.yaml", "exists")


def test_an_out_folder_that_cannot_be_made_is_refused_before_training(work: Path) -> None:
    refused(compress(*TRAIN, "--out", "tiny.yaml/run"), "tiny.yaml/run")
    refused(compress(*TRAIN, "--out", "x" * 300), "x" * 300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_that_is_not_there_is_refused(trained: Path) -> None:
    refused(compress(*TRAIN, "--device", "cuda"), "'cuda'", "sees no CUDA device", "takes auto, cpu")
    refused(compress("eval", trained / "checkpoint.pt", "--device", "cuda"), "cuda")


def test_a_loss_that_is_not_finite_is_exit_1_and_names_epoch_step_and_components(work: Path) -> None:
    result = compress(*TRAIN, "--set", "optimizer.lr=1e9", "--out", "run")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1
    for word in ("not finite", "epoch 0", "step ", "data ", "shrink "):
        assert word in result.err
    assert not (work / "run" / "sparsity.json").exists()


def test_a_step_into_infinity_is_exit_1_even_when_it_was_the_last_one(work: Path) -> None:
    # One epoch of one step: the loss before it is finite, no other step would see what it did.
    huge = ["--set", "epochs=1", "--set", "data.batch=2000", "--set", "optimizer.lr=1e38"]
    result = compress("train", "-c", "tiny", *huge, "--out", "run")
    assert result.code == 1
    assert "not finite" in result.err


def test_a_missed_target_is_exit_1_after_everything_is_written(work: Path) -> None:
    result = compress(*TRAIN, "--set", "epochs=2", "--out", "run")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.lower().count("error: ") == 1
    for word in ("target missed", "fine", "fc1.weight", "fc2.weight", "0.75", "0.25"):
        assert word in result.err
    assert saved(work / "run" / "checkpoint.pt")["finished"] is True
    assert {"checkpoint.pt", "best.pt", "sparsity.json", "sparsity.csv"} <= {p.name for p in (work / "run").iterdir()}
    assert "fc1.weight" in result.out  # the table was printed all the same
    assert succeed("report", "run").partition("\n\n       ")[0] in result.out  # all but the latency


def test_a_window_that_the_run_never_reaches_is_warned_of_once(work: Path) -> None:
    late = ["--set", "epochs=2", "--out", "run"]
    result = compress(*TRAIN, *late)
    lines = [line for line in (result.out + result.err).splitlines() if "warning" in line and "fine" in line]
    assert len(lines) == 1
    assert "prune.yaml:10:5" in lines[0]


def test_the_console_script_ends_with_the_code_and_the_message(work: Path) -> None:
    refused(process("train", "--schedul", "lenet5_agp", cwd=work), "No such option", "--schedule")
