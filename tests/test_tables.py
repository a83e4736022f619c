"""Tables that fit a terminal: a row is one line, columns go by rank, names lose their middle, rich measures."""

import pytest

from compressor.tables import Column, Table, table, wrapped

COLUMNS = [
    Column("name", left=True, shortened="middle"),
    Column("shape", left=True, rank=1),
    Column("weights"),
    Column("rows %", rank=2),
    Column("mean", rank=3),
]
ROWS = [
    ["features.0.weight", "64x3x3x3", "1,728", "-", "0.5"],
    ["classifier.weight", "10x64", "640", "-", "0.25"],
]


def lines(made: Table) -> list[str]:
    return [made.head, *made.rows]


def test_all_columns_are_shown_where_there_is_room() -> None:
    whole = [
        "name               shape     weights  rows %  mean",
        "features.0.weight  64x3x3x3    1,728       -   0.5",
        "classifier.weight  10x64         640       -  0.25",
    ]
    for width in (None, 1000, 50):
        made = table(COLUMNS, ROWS, width)
        assert lines(made) == whole
        assert (made.rule, made.left_out, made.note(width)) == ("-" * 50, [], [])


@pytest.mark.parametrize(
    ("width", "left_out", "first"),
    [
        (49, ["rows %"], "features.0.weight  64x3x3x3    1,728   0.5"),  # it has no figure: before those of higher rank
        (41, ["rows %", "mean"], "features.0.weight  64x3x3x3    1,728"),
        (35, ["shape", "rows %", "mean"], "features.0.weight    1,728"),
        (26, ["shape", "rows %", "mean"], "features.0.weight    1,728"),
        (25, ["shape", "rows %", "mean"], "feature...weight    1,728"),  # a name is shortened when no column can go
        (17, ["shape", "rows %", "mean"], "fea...ht    1,728"),
        (12, ["shape", "rows %", "mean"], "fea...ht"),  # no room for what is always shown
    ],
)
def test_columns_go_by_rank_and_then_names_are_shortened(width: int, left_out: list[str], first: str) -> None:
    made = table(COLUMNS, ROWS, width)
    assert made.left_out == left_out
    assert made.rows[0].startswith(first)
    assert max(map(len, [*lines(made), made.rule])) <= width
    note = " ".join(" ".join(made.note(width)).split())
    assert note == f"not shown here: {', '.join(left_out)}; --wide shows all columns"


def test_wide_characters_count_twice_and_markup_is_text() -> None:
    names = ["層.重み", "[bold]x[/bold]", ":smile:.w", "e\u0301.w"]
    made = table([Column("name", left=True), Column("n")], [[name, "1"] for name in names])
    # 3 wide characters of 2 columns and a dot are 7; [bold]x[/bold] has 14, and e with an accent is one.
    assert made.rows == ["層.重み         1", "[bold]x[/bold]  1", ":smile:.w       1", "e\u0301.w             1"]
    short = table([Column("name", left=True, shortened="middle"), Column("n")], [["層" * 10, "1"]], 15)
    assert short.rows == ["層層...層層  1"]


def test_a_text_is_cut_at_its_end() -> None:
    columns = [Column("", left=True), Column("", left=True, shortened="end")]
    assert table(columns, [["name", "a long sentence"]], 18).rows == ["name  a long se..."]
    assert table(columns, [], 18).rows == []


def test_sentences_are_wrapped_with_an_indent() -> None:
    assert wrapped("  one two three", None) == wrapped("  one two three", 15) == "  one two three"
    assert wrapped("  one two three", 11) == "  one two\n    three"
    assert wrapped("a-path/that-is-longer is whole", 10) == "a-path/that-is-longer\n  is whole"


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"])
def test_there_are_no_colours_even_where_they_are_forced(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    assert "\x1b" not in "".join(lines(table(COLUMNS, ROWS)))
