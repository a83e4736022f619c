"""Safe YAML with places: what is refused, what is bounded, and where everything stands (lines and columns from 1)."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.errors import UserError
from compressor.schedule.document import MAX_BYTES, MAX_NODES, Document, describe, parse, parse_value, read
from compressor.schedule.faults import Faults

Parsed = Callable[[str], tuple[Document, list[str]]]

MARKED = """\
version: 1
pruners:
  fine: {class: A, weights: [a, b]}
policies:
  - pruner: {instance_name: fine}
    "starting_epoch": 3
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("version",), "1:1", "1:10"),
        (("pruners",), "2:1", "3:3"),
        (("pruners", "fine"), "3:3", "3:9"),
        (("pruners", "fine", "class"), "3:10", "3:17"),
        (("pruners", "fine", "weights"), "3:20", "3:29"),
        (("policies",), "4:1", "5:3"),
        (("policies", 0, "pruner"), "5:5", "5:13"),
        (("policies", 0, "pruner", "instance_name"), "5:14", "5:29"),
        (("policies", 0, "starting_epoch"), "6:5", "6:23"),
    ],
)
def test_every_key_and_value_has_its_line_and_column_counted_from_1(
    parsed: Parsed, path: tuple[str | int, ...], key: str, value: str
) -> None:
    document, faults = parsed(MARKED)
    assert faults == []
    assert str(document.place(path, key=True)) == f"s.yaml:{key}"
    assert str(document.place(path)) == f"s.yaml:{value}"


def test_list_items_have_places_and_a_missing_path_has_that_of_what_encloses_it(parsed: Parsed) -> None:
    document, _ = parsed(MARKED)
    assert str(document.place(("pruners", "fine", "weights", 1))) == "s.yaml:3:33"
    assert str(document.place(("policies", 0))) == "s.yaml:5:5"
    assert str(document.place(("pruners", "fine", "nothing", "here"))) == "s.yaml:3:9"
    assert document.has(("pruners", "fine", "weights", 1))
    assert not document.has(("pruners", "fine", "weights", 2))


def test_plain_data_come_out_as_python_values(parsed: Parsed) -> None:
    document, faults = parsed("{i: 12, h: 0x10, f: 0.5, t: true, n: null, e: , s: text, q: '12', l: [1, [2]], d: {}}")
    assert faults == []
    assert document.data == {
        "i": 12,
        "h": 16,
        "f": 0.5,
        "t": True,
        "n": None,
        "e": None,
        "s": "text",
        "q": "12",
        "l": [1, [2]],
        "d": {},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("5e3", 5000.0),
        ("-2e+1", -20.0),
        ("+1.e2", 100.0),
        (".5e1", 5.0),
        ("1_000e-3", 1.0),
        ("1.5e-3", 1.5e-3),
    ],
)
def test_row_1e4_is_a_float(parsed: Parsed, text: str, value: float) -> None:
    document, faults = parsed(f"x: {text}")
    assert faults == []
    assert type(document.data["x"]) is float
    assert document.data["x"] == value


@pytest.mark.parametrize("text", ["e4", "1e", "1e-4x", "'1e-4'", "lr1e-4"])
def test_text_that_only_resembles_a_number_stays_text(parsed: Parsed, text: str) -> None:
    document, faults = parsed(f"x: {text}")
    assert faults == []
    assert document.data["x"] == text.strip("'")


@pytest.mark.parametrize("text", ["1:30", "12:30:45", "1:30.5", "2020-01-02"])
def test_clock_times_and_dates_are_text_not_base_60_numbers(parsed: Parsed, text: str) -> None:
    document, faults = parsed(f"x: {text}")
    assert faults == []
    assert document.data == {"x": text}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (".inf", "is not a finite number"),
        ("-.inf", "is not a finite number"),
        (".nan", "is not a finite number"),
        ("1e400", "is not a finite number"),
        ("-3.41e38", "does not fit into a 32-bit floating-point number"),
        ("1e-46", "is 0 as a 32-bit floating-point number"),
        ("1" + 30 * "0", "does not fit into 64 bits"),
    ],
)
def test_a_number_that_no_run_can_use_is_a_fault_at_its_place(parsed: Parsed, text: str, words: str) -> None:
    document, faults = parsed(f"a: 1\nb: [2, {text}]\n")
    assert faults == [f"s.yaml:2:8: 'b': {text!r} {words}" + faults[0].partition(words)[2]]
    assert document.data == {"a": 1, "b": [2, None]}


@pytest.mark.parametrize("text", ["3.4e38", "1.5e-45", "0.0", "-0.0", "1e-38"])
def test_numbers_that_fit_into_32_bits_are_values(parsed: Parsed, text: str) -> None:
    document, faults = parsed(f"x: {text}")
    assert (faults, document.data) == ([], {"x": float(text)})


def test_a_long_row_of_digits_is_read_once(parsed: Parsed) -> None:
    _, faults = parsed(f"x: {200_000 * '1'}x")  # hours where each digit is tried as the last one before a point
    assert faults == []


def test_row_duplicate_keys_are_faults_with_both_places(parsed: Parsed) -> None:
    document, faults = parsed("a: 1\nb: {c: 1,\n    c: 2}\na: 3\n")
    assert faults == [
        "s.yaml:3:5: the key 'c' is given twice: remove one; the first is at line 2",
        "s.yaml:4:1: the key 'a' is given twice: remove one; the first is at line 1",
    ]
    assert document.data == {"a": 1, "b": {"c": 1}}


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system ['touch {path}']",
        "!!python/object/apply:os.system\n    - touch {path}",
        "!!python/object/new:os.system ['touch {path}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{path}']]",
    ],
)
def test_row_unsafe_tags_are_an_error_and_never_executed(parsed: Parsed, tmp_path: Path, tagged: str) -> None:
    path = tmp_path / "executed"
    document, faults = parsed("ok: 1\nx: " + tagged.format(path=path))
    assert not path.exists()
    assert [line.partition(": ")[0] for line in faults] == ["s.yaml:2:4"]
    assert "!!python/object" in faults[0]
    assert document.data == {"ok": 1, "x": None}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("!!python/name:os.system ''", "!!python/name:os.system"),
        ("!!python/tuple [1]", "!!python/tuple"),
        ("!custom 1", "!custom"),
        ("!!set {a, b}", "!!set"),
        ("!!binary aGk=", "!!binary"),
        ("!!omap [a: 1]", "!!omap"),
        ("!!map 1", "!!map"),
        ("!!seq {a: 1}", "!!seq"),
    ],
)
def test_row_any_tag_is_an_error_that_names_it(parsed: Parsed, value: str, shown: str) -> None:
    _, faults = parsed(f"x: {value}")
    assert faults == [f"s.yaml:1:4: the tag {shown} is not allowed here: plain values, lists and mappings only"]


@pytest.mark.parametrize(
    "value",
    ["!!int abc", "!!int ''", "!!float abc", "!!float ''", "!!bool maybe", "!!bool ''", "0b_", "0x_", "._e5"],
)
def test_a_scalar_that_is_not_what_it_claims_is_a_fault_at_its_place(parsed: Parsed, value: str) -> None:
    document, faults = parsed(f"x: {value}")
    assert len(faults) == 1
    assert faults[0].startswith("s.yaml:1:4: ")
    assert document.data == {"x": None}


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGED_LAUGHS = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: v}}\n" for i in range(1, 12)
)
NESTED_LAUGHS = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 12)
)
WIDE_MERGE = "a: &a {" + ", ".join(f"k{i}: 0" for i in range(2000)) + "}\nb: {<<: [" + ", ".join(["*a"] * 9000) + "]}\n"


@pytest.mark.parametrize("bomb", [LAUGHS, MERGED_LAUGHS, NESTED_LAUGHS, WIDE_MERGE], ids=["list", "<<", "map", "wide"])
def test_aliases_that_multiply_are_cut_off_in_bounded_time(parsed: Parsed, bomb: str) -> None:
    start = time.perf_counter()
    _, faults = parsed(bomb)
    assert time.perf_counter() - start < 8
    assert len(faults) == 1
    assert f"more than {MAX_NODES} values" in faults[0]


@pytest.mark.parametrize(
    "text", ["a: &x [*x]", "a: &x {b: *x}", "&x [*x, *x, *x]", "a: &x {<<: *x, b: 1}", "a: &x [&y [*x, *y]]"]
)
def test_an_alias_that_contains_itself_is_a_fault_not_a_hang(parsed: Parsed, text: str) -> None:
    start = time.perf_counter()
    _, faults = parsed(text)
    assert time.perf_counter() - start < 8
    assert faults
    assert len(faults) < 10
    assert all(line.startswith("s.yaml:1:") for line in faults)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "], ids=["flow list", "flow map", "block list", "key"])
@pytest.mark.parametrize("depth", [60, 20_000])
def test_too_deep_a_nesting_is_a_fault(parsed: Parsed, opening: str, depth: int) -> None:
    closing = {"[": "]", "{a: ": "}"}.get(opening, "")
    start = time.perf_counter()
    _, faults = parsed(opening * depth + "1" + closing * depth)
    assert time.perf_counter() - start < 8
    assert len(faults) == 1
    if opening != "? ":
        assert "nested deeper than 40 levels" in faults[0]


def test_a_schedule_nested_as_deep_as_one_can_be_is_fine(parsed: Parsed) -> None:
    _, faults = parsed("[" * 30 + "1" + "]" * 30)
    assert faults == []


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "   "])
def test_an_empty_file_is_a_fault_on_line_1(parsed: Parsed, text: str) -> None:
    document, faults = parsed(text)
    assert faults == ["s.yaml:1:1: the file is empty"]
    assert document.data is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "2:2"),
        ("a: 'open\n", "2:1"),
        ("a: b: c\n", "1:5"),
        ("a: *nowhere\n", "1:4"),
        ("\tb: 1\n", "1:1"),
        ("a: 1\n   b: 2\n", "2:5"),
        ("a: }\n", "1:4"),
    ],
)
def test_broken_yaml_is_one_fault_where_the_parser_stumbled(parsed: Parsed, text: str, place: str) -> None:
    document, faults = parsed(text)
    assert len(faults) == 1
    assert faults[0].startswith(f"s.yaml:{place}: not YAML: ")
    assert document.data is None


def test_a_second_document_is_a_fault_where_it_begins(parsed: Parsed) -> None:
    _, faults = parsed("---\na: 1\n---\nb: 2\n")
    assert len(faults) == 1
    assert faults[0].startswith("s.yaml:3:1: not YAML: ")


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\ufffe"])
def test_a_control_character_is_a_fault(parsed: Parsed, character: str) -> None:
    document, faults = parsed(f"version: 1\nname: {character}\n")
    assert len(faults) == 1
    assert "not YAML" in faults[0]
    assert document.data is None


def test_a_control_character_is_reported_on_its_own_line(parsed: Parsed) -> None:
    _, faults = parsed("version: 1\nname: \x07\n")
    assert faults[0].startswith("s.yaml:2:7: ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("on: 1", "'on'"), ("1: 1", "'1'"), ("null: 1", "'null'"), ("1.5: 1", "'1.5'"), ("2020-01-02: 1", "'2020-01-02'")],
)
def test_a_key_that_yaml_takes_for_something_else_than_text_is_a_fault(parsed: Parsed, text: str, shown: str) -> None:
    document, faults = parsed(f"ok: 1\n{text}\n")
    assert faults == [f"s.yaml:2:1: a key should be text, got {shown}: put it in quotes"]
    assert document.data == {"ok": 1}


def test_a_quoted_key_is_text_and_a_list_as_key_is_a_fault(parsed: Parsed) -> None:
    assert parsed("'on': 1\n\"1\": 2\n")[0].data == {"on": 1, "1": 2}
    assert parsed("? [a, b]\n: 1\n")[1] == ["s.yaml:1:3: a key should be text, got a list or mapping: put it in quotes"]


@pytest.mark.parametrize("digits", ["9" * 5000, "-" + "9" * 5000])
def test_a_whole_number_too_long_for_python_is_a_fault(parsed: Parsed, digits: str) -> None:
    document, faults = parsed(f"x: {digits}")
    assert len(faults) == 1
    assert faults[0].startswith("s.yaml:1:4: ")
    assert len(faults[0]) < 200
    assert document.data == {"x": None}


@pytest.mark.parametrize("number", ["9" * 4000, "0x" + "f" * 4000, "0b" + "1" * 20000, "0" + "7" * 5000])
def test_a_huge_whole_number_can_be_described(parsed: Parsed, number: str) -> None:
    document, faults = parsed(f"x: {number}")
    assert faults or len(describe(document.data["x"])) <= 60


def test_anchors_aliases_and_merge_keys_that_do_no_harm_work(parsed: Parsed) -> None:
    document, faults = parsed("base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\na: *b\nc: {<<: [*b, *m], x: 9}\n")
    assert faults == []
    assert document.data["a"] == {"x": 1, "y": 2}
    assert document.data["c"] == {"x": 9, "y": 2, "z": 4}  # own keys win, then the first merged mapping


def test_own_keys_win_over_merged_ones_also_when_the_merge_comes_last(parsed: Parsed) -> None:
    document, faults = parsed("base: &b {x: 1, y: 2}\nc:\n  x: 9\n  <<: *b\n")
    assert faults == []
    assert document.data["c"] == {"x": 9, "y": 2}
    assert str(document.place(("c", "x"))) == "s.yaml:3:6"
    assert str(document.place(("c", "x"), key=True)) == "s.yaml:3:3"
    assert str(document.place(("c", "y"))) == "s.yaml:1:20"  # where the merged value is written


def test_merging_something_that_is_no_mapping_is_a_fault(parsed: Parsed) -> None:
    assert parsed("a: {<<: 1}\n")[1] == ["s.yaml:1:5: '<<' should merge a mapping"]
    assert parsed("a: &a [1]\nb: {<<: *a}\n")[1] == ["s.yaml:2:5: '<<' should merge a mapping"]


def test_two_aliases_of_one_anchor_are_two_values(parsed: Parsed) -> None:
    document, _ = parsed("base: &b {x: {y: 1}}\na: *b\nc: {<<: *b}\n")
    document.set("a.x.y", 2, "--set a.x.y=2")
    assert document.data == {"base": {"x": {"y": 1}}, "a": {"x": {"y": 2}}, "c": {"x": {"y": 1}}}


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(parsed: Parsed) -> None:
    document, faults = parsed("\ufeffa: 1\r\nb:\r\n  c: 2\r\n")
    assert faults == []
    assert document.data == {"a": 1, "b": {"c": 2}}
    assert str(document.place(("b", "c"))) == "s.yaml:3:6"


def test_whatever_the_text_is_the_answer_is_data_or_faults(
    parsed: Parsed, faults_of: Callable[[str], list[str]]
) -> None:
    good = """\
version: 2
config: x
pruners:
  fine: &f {class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 8e-1, weights: ['*', "re:fc"]}
lr_schedulers: {lr: {class: StepLR, step_size: 30}}
policies:
  - {pruner: {instance_name: fine}, starting_epoch: 0, ending_epoch: 20, frequency: 2}
  - {lr_scheduler: {instance_name: lr}, epochs: [0, 1, 2]}
"""
    assert faults_of(good) == []
    draw = random.Random(0)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "\n",
        "\t",
        "&f ",
        "*f",
        "<<: *f",
        "!!int ",
        "!x ",
        "'",
        '"',
        "|",
        ">",
    ]
    pieces += ["null", "on", "1e-4", "-1", "0x1f", "~", "#", "?", "%", "@", "\x00", "é", "class", "version: 1", ", "]
    broken = 0
    for _ in range(250):
        text = good
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(text))
            text = text[:at] + draw.choice(pieces) + text[at + draw.choice([0, 0, 1, 5]) :]
        lines = faults_of(text)
        assert all(line.startswith("s.yaml:") for line in lines)
        broken += bool(lines)
    assert broken > 150


def test_a_file_is_read_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes("name: é\n".encode())
    assert read(path) == "name: é\n"


@pytest.mark.parametrize(
    ("raw", "place"), [(b"\xff\xfe\x00", "1:1"), (b"a: 1\nbc: \xff\n", "2:5"), (b"\x89PNG\r\n\x1a\n", "1:1")]
)
def test_binary_garbage_is_refused_where_it_begins(tmp_path: Path, raw: bytes, place: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:{place}: this byte is not UTF-8 text"


def test_a_file_that_is_too_large_missing_or_a_folder_is_a_user_error(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    for path in (large, tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(UserError, match=r"^/.*: "):
            read(path)


def test_set_replaces_a_value_whose_place_is_then_the_flag(parsed: Parsed) -> None:
    document, _ = parsed("optimizer: {lr: 0.1}\nepochs: 3\n")
    assert not document.overridden
    document.set("optimizer.lr", 0.2, "--set optimizer.lr=0.2")
    assert document.data == {"optimizer": {"lr": 0.2}, "epochs": 3}
    assert document.overridden
    assert str(document.place(("optimizer", "lr"))) == "--set optimizer.lr=0.2"
    assert str(document.place(("optimizer", "lr"), key=True)) == "--set optimizer.lr=0.2"
    assert str(document.place(("epochs",))) == "s.yaml:2:9"


def test_set_reaches_list_items_and_names_with_dots(parsed: Parsed) -> None:
    document, _ = parsed("levels: {conv1.weight: 0.5, conv1: {weight: 0.1}}\npolicies: [{a: 1}, {a: 2}]\n")
    document.set("levels.conv1.weight", 0.7, "--set")
    document.set("policies.1.a", 5, "--set")
    assert document.data == {
        "levels": {"conv1.weight": 0.7, "conv1": {"weight": 0.1}},
        "policies": [{"a": 1}, {"a": 5}],
    }


def test_set_makes_missing_blocks(parsed: Parsed) -> None:
    document, _ = parsed("a: 1\nb:\n")
    document.set("optimizer.momentum", 0.9, "--set 1")
    document.set("b.c.d", 2, "--set 2")
    assert document.data == {"a": 1, "b": {"c": {"d": 2}}, "optimizer": {"momentum": 0.9}}
    assert str(document.place(("optimizer",), key=True)) == "--set 1"
    assert str(document.place(("b", "c"))) == "--set 2"


def test_set_of_a_whole_block_forgets_the_places_of_the_old_one(parsed: Parsed) -> None:
    document, _ = parsed("a: {b: {c: 1}}\n")
    document.set("a.b", {"d": [7]}, "--set")
    assert document.data == {"a": {"b": {"d": [7]}}}
    assert not document.has(("a", "b", "c"))
    assert str(document.place(("a", "b", "d", 0))) == "--set"


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("policies.2.a", "should be a number from 0 to 1 here, got '2'"),
        ("policies.x", "should be a number from 0 to 1 here, got 'x'"),
        ("policies.-1.a", "should be a number from 0 to 1 here, got '-1'"),
        ("policies.0.a", "'policies.0' is 5: a value inside of it cannot be set"),
    ],
)
def test_set_on_a_path_that_cannot_be_says_so_with_the_flag_as_the_place(
    parsed: Parsed, dotted: str, message: str
) -> None:
    document, _ = parsed("policies: [5, {a: 1}]\n")
    with pytest.raises(UserError) as caught:
        document.set(dotted, 1, f"--set {dotted}=1")
    assert str(caught.value) == f"--set {dotted}=1: {message}"
    assert document.data == {"policies": [5, {"a": 1}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("20", 20), ("true", True), ("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1}), ("abc", "abc"), ("", None)],
)
def test_the_value_of_a_flag_is_yaml(text: str, value: object) -> None:
    assert parse_value(text, "--set x") == value


@pytest.mark.parametrize("text", ["[1", "!!python/name:os.system ''", "{a: 1, a: 2}", "a: b: c", "--- 1\n--- 2"])
def test_the_value_of_a_flag_that_is_not_yaml_is_an_error_with_the_flag_as_the_place(text: str) -> None:
    with pytest.raises(UserError, match=r"^--set x=\?: "):
        parse_value(text, "--set x=?")


def test_an_equal_repeated_key_is_a_fault_unless_it_is_asked_for(parsed: Parsed) -> None:
    text, said = "a: {b: [1, x]}\na: {b: [1, x]}\n", "the key 'a' is given twice: remove one; the first is at line 1"
    assert parsed(text)[1] == [f"s.yaml:2:1: {said}"]
    faults = Faults()
    document = parse("s.yaml", text, faults, repeats=True)
    assert not faults
    assert [(str(place), found) for place, found in document.repeats] == [("s.yaml:2:1", said)]
