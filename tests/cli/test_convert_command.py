"""`compress convert`: a schedule of version 1 becomes one of version 2 that means the same, with its comments."""

from pathlib import Path

import pytest
import yaml
from helpers import compress, succeed

from compressor import lookup
from compressor.experiment import inspection
from compressor.experiment.specification import specification

OLD = """\
# A notebook: 91.2 % with 40 % of the filters.
#   time: 3 hours

version: 1   # Distiller's

pruners:
  rows: {class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: [fc.weight]}
  some:        # half of them
    class: L2RankedStructureParameterPruner
    group_type: Filters
    desired_sparsity: 0.5
    noise: 0.25  # of ten events two
    weights: [module.conv1.weight]   # the first

extensions:
  net_thinner:
      class: 'FilterRemover'
      thinning_func_str: remove_filters
      arch: 'resnet20_cifar'   # not ours
      dataset: 'cifar10'

regularizers:
  lasso: {class: L1Regularizer, reg_regims: {module.fc.weight: 1e-4}}

lr_schedulers:
  late: {class: StepLR, step_size: 10, gamma: 0.1}
  early: {class: ExponentialLR, gamma: 0.9}

policies:
  - pruner:
      instance_name: some
      args: {mask_gradients: true}
    starting_epoch: 0
    ending_epoch: 9
    frequency: 2

  - pruner: {instance_name: rows}
    epochs: [0]
  - extension: {instance_name: net_thinner}
    epochs: [4]
  - regularizer:
      instance_name: lasso
      args:
        keep_mask: true
    starting_epoch: 0
    ending_epoch: 20
    frequency: 1
  - lr_scheduler:
      instance_name: late     # the second half
    starting_epoch: 10
    ending_epoch: 20
    frequency: 1
  - lr_scheduler: {instance_name: early}
    starting_epoch: 0
    ending_epoch: 10
    frequency: 1
"""

NEW = """\
# A notebook: 91.2 % with 40 % of the filters.
#   time: 3 hours

# converted from version 1: version 2 ends a run whose logits no longer depend on the image;
# version 1 went on with a warning, as version 2 does with `allow_empty_layers: true` in the args of a pruner's policy
version: 2   # Distiller's

pruners:
  # `group_type: Rows` ranks stored columns (inputs) in version 1, as Distiller's rankers do
  rows: {class: L1RankedStructureParameterPruner, group_type: Cols, desired_sparsity: 0.5, weights: [fc.weight]}
  some:        # half of them
    class: L2RankedStructureParameterPruner
    group_type: Filters
    desired_sparsity: 0.5
    # `noise: 0.25` is in version 1 the probability of a random ranking, as in Distiller
    noise: {probability: 0.25}  # of ten events two
    weights: [module.conv1.weight]   # the first

extensions:
  net_thinner:
      class: 'FilterRemover'
      thinning_func_str: remove_filters
      # removed (no meaning here): arch: 'resnet20_cifar'   # not ours
      # removed (no meaning here): dataset: 'cifar10'

regularizers:
  lasso: {class: L1Regularizer, reg_regims: {module.fc.weight: 1e-4}}

lr_schedulers:
  late: {class: StepLR, step_size: 10, gamma: 0.1}
  early: {class: ExponentialLR, gamma: 0.9}

policies:
  - pruner:
      instance_name: some
      # version 1 refers to the weights that a removal of channels left; version 2 to the dense ones
      args: {mask_gradients: true, sparsity_of: current}
    starting_epoch: 0
    ending_epoch: 9
    frequency: 2

  - pruner: {instance_name: rows}
    epochs: [0]
  - extension: {instance_name: net_thinner}
    epochs: [4]
  - regularizer:
      instance_name: lasso
      args:
        # removed (`keep_mask: true` has no meaning here: this regularizer makes no zeros): keep_mask: true
    starting_epoch: 0
    ending_epoch: 20
    frequency: 1
  - lr_scheduler:
      instance_name: late     # the second half
      # version 1 counts epochs of a learning rate from the run's beginning; version 2 from its window's
      args: {origin: absolute}
    starting_epoch: 10
    ending_epoch: 20
    frequency: 1
  - lr_scheduler: {instance_name: early}
    starting_epoch: 0
    ending_epoch: 10
    frequency: 1
"""


def write(text: str, name: str = "old.yaml") -> None:
    Path(name).write_bytes(text.encode())


def convert(text: str, *more: str) -> str:
    """The text of version 2, which `diff` cannot tell from the old one."""
    write(text)
    result = compress("convert", "old.yaml", *more)
    assert result.code == 0, result.err
    write(result.out, "new.yaml")
    assert succeed("diff", "old.yaml", "new.yaml") == "no difference\n"
    assert compress("validate", "new.yaml").err == ""
    return result.out


def refused(text: str, *more: str) -> str:
    write(text)
    result = compress("convert", "old.yaml", *more)
    assert (result.code, result.out) == (2, "")
    return result.err


def test_each_change_has_its_comment_and_all_else_stays() -> None:
    assert convert(OLD) == NEW


def test_lines_end_as_they_did() -> None:
    assert convert(OLD.replace("\n", "\r\n")) == NEW.replace("\n", "\r\n")


FLOW = """\
lr_schedulers: {lr: {class: StepLR, step_size: 1, gamma: 0.5, last_epoch: 3, verbose: true}}
extensions: {thin: {arch: a, class: FilterRemover, dataset: b, thinning_func_str: remove_filters, verbose: 1}}
policies:
  - {lr_scheduler: {instance_name: lr, args: {verbose: true}}, starting_epoch: 1}
  - {extension: {args: , instance_name: thin}, epochs: [0]}
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_last_line_has_its_end_whether_it_had_one_or_not(work: Path, end: str) -> None:
    text = OLD.replace("\n", end)
    for number, given in enumerate((text, text.removesuffix(end))):
        (work / "old.yaml").write_bytes(given.encode())
        assert succeed("convert", "old.yaml").endswith(f"frequency: 1{end}")
        succeed("convert", "old.yaml", "--out", f"new{number}.yaml")
        assert (work / f"new{number}.yaml").read_bytes().endswith(f"frequency: 1{end}".encode())


def test_keys_in_braces_are_removed_with_their_commas() -> None:
    new = convert(FLOW)
    data = yaml.safe_load(new)
    assert data["lr_schedulers"] == {"lr": {"class": "StepLR", "step_size": 1, "gamma": 0.5}}
    assert data["extensions"]["thin"] == {"class": "FilterRemover", "thinning_func_str": "remove_filters"}
    assert data["policies"][0]["lr_scheduler"] == {"instance_name": "lr", "args": {"origin": "absolute"}}
    assert new.startswith("# converted from version 1\nversion: 2\n# removed (no meaning here): last_epoch: 3\n")


def test_a_header_stays_above_and_a_document_mark_too() -> None:
    new = convert(f"# made in May\n---\n{FLOW}")
    assert new.startswith("# made in May\n---\n# converted from version 1\nversion: 2\n")


ANCHORS = """\
pruners:
  a: &base
    class: L1RankedStructureParameterPruner
    group_type: Rows
    noise: &n 0.5
    desired_sparsity: 0.5
    weights: [a.weight]
  b: {<<: *base, weights: [b.weight]}
  c: {class: L2RankedStructureParameterPruner, group_type: Rows, noise: *n, desired_sparsity: 0.1, weights: c.weight}
lr_schedulers: {lr: {class: StepLR, step_size: 1}}
policies:
  - pruner: {instance_name: a}
    epochs: &first [0]
  - {pruner: {instance_name: b}, epochs: *first}
  - {pruner: {instance_name: c}, epochs: *first}
  - {lr_scheduler: &lr {instance_name: lr}, epochs: [1, 2]}
  - {lr_scheduler: *lr, epochs: [4, 5]}
"""


def test_what_an_anchor_repeats_is_changed_once() -> None:
    new = convert(ANCHORS)
    assert "    group_type: Cols\n" in new
    assert new.count("Cols") == 2
    assert "noise: &n {probability: 0.5}\n" in new
    assert "&lr {instance_name: lr, args: {origin: absolute}}" in new


def test_an_anchor_of_two_meanings_is_refused_with_the_line() -> None:
    two = ANCHORS.replace("c: {class: L2RankedStructureParameterPruner", "c: {class: Pruner")
    two = two.replace("group_type: Rows, noise: *n, desired_sparsity: 0.1,", "criterion: l1, rate: {sparsity: *n},")
    said = refused(two)
    assert "old.yaml" in said
    assert "an anchor stands for two things: write it out once for each" in said


RENAMED = """\
pruners:
  fm:
    class: FMReconstructionChannelPruner
    ranking_noise: %s   # a word of its own
    group_type: Channels
    desired_sparsity: 0.5
    weights: [conv2.weight]
policies: [{pruner: {instance_name: fm}, epochs: [0]}]
"""


def test_a_key_with_another_name_is_renamed() -> None:
    assert "    noise: 0   # a word of its own\n" in convert(RENAMED % 0)
    assert "    noise: {probability: 0.5}   # a word of its own\n" in convert(RENAMED % 0.5)


TWICE = """\
regularizers:
  l1:
    class: L1Regularizer
    reg_regims:
      a.weight: 0.1   # first
      a.weight: 0.1
policies: [{regularizer: {instance_name: l1}}]
"""


def test_a_key_that_is_given_twice_is_removed_where_it_stands_again() -> None:
    lines = convert(TWICE).splitlines()
    assert lines[6:8] == ["      a.weight: 0.1   # first", "      # removed (given twice): a.weight: 0.1"]


def test_the_claim_beside_the_file_moves_into_it() -> None:
    write("# what it reached\nconfig: tiny\ntop1: {min: 90}\n", "old.expect.yaml")
    new = convert(TWICE)
    head = "# converted from version 1\nversion: 2\nexpect:\n  # what it reached\n  config: tiny\n  top1: {min: 90}\n"
    assert new.startswith(head)
    assert "version: 2\nexpect:\n  # what it reached" in convert(f"{TWICE}version: 1\n")


def test_a_file_that_is_one_mapping_in_braces() -> None:
    write("{config: tiny, top1: {min: 90}}\n", "old.expect.yaml")
    braces = "{policies: [{regularizer: {class: L1Regularizer, reg_regims: {a.weight: 0.1}, args: {verbose: 1}}}]}\n"
    for text in (braces, braces.replace("{policies", "{version: 1, policies")):
        assert yaml.safe_load(convert(text))["expect"] == {"config": "tiny", "top1": {"min": 90}}


def test_the_file_is_written_and_never_overwritten() -> None:
    write(TWICE)
    assert succeed("convert", "old.yaml", "--out", "there/new.yaml") == "written: there/new.yaml\n"
    assert Path("there/new.yaml").read_text() == succeed("convert", "old.yaml")
    result = compress("convert", "old.yaml", "--out", "there/new.yaml")
    assert (result.code, "there/new.yaml exists" in result.err) == (2, True)
    write("top1: {min: 1}\n", "other.expect.yaml")
    assert "other.expect.yaml exists" in compress("convert", "old.yaml", "--out", "other.yaml").err
    assert not Path("other.yaml").exists()


SPLICING = """\
pruners:
  s: {class: SplicingPruner, low_thresh_mult: 0.9, hi_thresh_mult: 1.1, sensitivities: {fc1.weight: 0.5}}
policies:
  - pruner: {instance_name: s}
    epochs: [0]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPLICING, "old.yaml:4:5: version 2 cannot have this: SplicingPruner needs `use_double_copies: true`"),
        (f"version: 2\n{TWICE}".replace("      a.weight: 0.1\n", ""), "old.yaml:1:10: it has version 2 already"),
        (TWICE.replace("class: L1R", "class: K1R"), "old.yaml:3:12: no class 'K1Regularizer'"),
        (TWICE.replace("a.weight: 0.1\n", "a.weight: 0.2\n"), "old.yaml:6:7: the key 'a.weight' is given twice"),
        (
            "quantizers: {q: {class: DorefaQuantizer}}\n" + TWICE,
            "old.yaml:1:25: known from Distiller, and not built yet",
        ),
    ],
)
def test_what_cannot_be_kept_is_an_error_with_its_line(text: str, said: str) -> None:
    assert said in refused(text)


LOGITS = """\
pruners:
  all: {class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: [module.fc2.weight]}
policies: [{pruner: {instance_name: all}, epochs: [0]}]
"""


def test_with_a_configuration_what_version_2_refuses_is_an_error_with_its_line() -> None:
    """The layer that makes the logits loses whole classes: version 1 warns."""
    filters = LOGITS.replace("group_type: Rows", "group_type: Filters")
    assert "note: weight names are not checked" in compress("convert", str(_written(filters))).err
    said = refused(filters, "-c", "tiny")
    assert "version 2 refuses this, where version 1 warns" in said
    assert "old.yaml:2:" in said
    assert "prunes whole classes" in said
    assert convert(LOGITS, "-c", "tiny")  # columns are no classes


def _written(text: str) -> Path:
    write(text)
    return Path("old.yaml")


PLANNED = (
    """\
pruners:
  a: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.8, weights: [module.fc1.weight]}
lr_schedulers: {r: {class: StepLR, step_size: 2, gamma: 0.1}}
policies:
  - {pruner: {instance_name: a}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {lr_scheduler: {instance_name: r}, starting_epoch: 2, ending_epoch: 4, frequency: 1}
""",
    """\
version: 1
pruners:
  a:
    class: L1RankedStructureParameterPruner_AGP
    initial_sparsity: 0.1
    final_sparsity: 0.6
    group_type: Filters
    weights: [fc1.weight]
extensions: {t: {class: FilterRemover, thinning_func_str: remove_filters, arch: x}}
policies:
  - {pruner: {instance_name: a}, starting_epoch: 0, ending_epoch: 4, frequency: 1}
  - {extension: {instance_name: t}, epochs: [1]}
""",
)


@pytest.mark.parametrize("old", PLANNED)
def test_the_plan_is_the_same(old: str) -> None:
    """Compared here by itself, too: `convert` compares it as its last step."""
    new = convert(old, "-c", "tiny")
    write(new, "new.yaml")
    plans = [inspection.plan(specification(name, "tiny"), None)[0] for name in ("old.yaml", "new.yaml")]
    assert plans[0] == plans[1]
    write(new.replace(", args: {origin: absolute}", "").replace(", args: {sparsity_of: current}", ""), "without.yaml")
    assert inspection.plan(specification("without.yaml", "tiny"), None)[0] != plans[0]


def test_the_shipped_schedules_of_version_1_are_converted() -> None:
    files = lookup.shipped_files("schedules")
    old = {name: path for name, path in files.items() if "version: 2" not in path.read_text()}
    assert len(old) >= 2
    for name, path in old.items():
        new = succeed("convert", name)
        write(new, "new.yaml")
        assert succeed("diff", name, "new.yaml") == "no difference\n"
        kept = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert [line for line in new.splitlines() if line in kept] == kept
