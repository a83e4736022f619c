"""Table, CSV and JSON show the same figures."""

import csv
import io
import json
import math
import re

import pytest
import torch
from torch import nn

from compressor.reports.formats import as_csv, as_json, as_table
from compressor.reports.report import Report, measure


@pytest.fixture
def report() -> Report:
    """conv 2 x 1 x 3 x 3 with one empty filter, fc 150 x 8 with a third of its rows empty."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 150))
    with torch.no_grad():
        model[0].weight.fill_(-0.5)
        model[0].weight[1] = 0.0
        model[2].weight.fill_(0.125)
        model[2].weight[::3] = 0.0
        model[0].bias.fill_(1.0)
        model[2].bias.fill_(1.0)
        model[2].bias[:38] = 0.0
    return measure(model, (1, 4, 4), {"top1": 98.5, "top5": 100.0}, train={"top1": 99.75})


def test_json_is_the_whole_report_and_reads_back(report: Report) -> None:
    text = as_json(report)
    assert text.endswith("}\n")
    assert Report.model_validate_json(text) == report
    data = json.loads(text)
    assert data["totals"] == {
        "weights": 1218,
        "nonzero": 809,
        "sparsity": pytest.approx(409 / 1218),
        "sparsity_all": pytest.approx((409 + 38) / 1370),
        "parameters": 1218 + 152,
        "macs": 72 + 1200,
        "macs_nonzero": 36 + 800,
        "dense_weights": None,
        # 504, 88 + 64 + 800 * 36 and 152 * 32; fc has gaps of 8 zeros; 88 + 64 + 800 * 35 + 151 * 32 as CSR
        "stored_bits": {
            "dense": 1370 * 32,
            "relative": 504 + 28_952 + 4864,
            "widths": [4, 4],
            "relative_han": 576 + 29_752 + 4864,
            "csr": 636 + 32_984 + 4864,
            "bitmask": 522 + 26_952 + 4864,
            # a bit for each weight, up to the last one of conv
            "rice": 513 + 26_952 + 4864,
            # conv and its bias are dense; fc and its bias are bitmasks of 150 and 19 bytes, without the stream's header
            "packed": 576 + 64 + (800 * 32 + 1200) + (112 * 32 + 152),
            # 18 bits for half of 18 weights, 1200 * 0.91830 for a third of 1200, 150 * 0.81645 for 38 biases of 150
            "entropy": 9 * 32 + 64 + 800 * 32 + 112 * 32 + math.ceil(18 + 1200 * 0.91830 + 150 * 0.81645),
        },
        "rates": {
            "weights": pytest.approx(1218 / 809),
            "parameters": pytest.approx(1370 / 961),
            "bits": pytest.approx(43_840 / 34_320),
        },
        "top1": 98.5,
        "top5": 100.0,
        "train_top1": 99.75,
    }
    assert "training top-1 99.75 % in the last epoch: generalization gap 1.25 points" in as_table(report)
    assert data["others"] == {"parameters": 152, "nonzero": 114, "sparsity": 0.25}
    assert data["tensors"][0]["rows"] is None
    assert data["tensors"][0]["shape"] == [2, 1, 3, 3]


def test_csv_has_a_line_a_tensor_and_a_total_and_empty_cells_where_there_is_no_such_structure(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [row["name"] for row in rows] == ["0.weight", "2.weight", "other parameters", "total"]
    assert [row["shape"] for row in rows] == ["2x1x3x3", "150x8", "", ""]
    assert [row["weights"] for row in rows] == ["18", "1200", "152", "1218"]
    assert [row["nonzero"] for row in rows] == ["9", "800", "114", "809"]
    assert [row["prunable"] for row in rows] == ["True", "True", "False", ""]
    assert [row["sparsity_all"] for row in rows] == ["", "", "", str(report.totals.sparsity_all)]
    assert (rows[0]["filters"], rows[0]["rows"]) == ("0.5", "")
    assert (rows[1]["filters"], float(rows[1]["rows"])) == ("", pytest.approx(1 / 3))
    assert "\r" not in as_csv(report)


def test_csv_and_json_show_the_same_figures(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    for row, tensor in zip(rows[:2], json.loads(as_json(report))["tensors"], strict=True):
        assert set(row) == {*tensor, "sparsity_all"}
        for key, value in tensor.items():
            if key not in ("name", "shape"):
                assert row[key] == ("" if value is None else str(value)), key
    assert float(rows[3]["sparsity"]) == report.totals.sparsity


def test_the_table_shows_the_same_figures_rounded_for_people(report: Report) -> None:
    lines = as_table(report).splitlines()
    head = re.split(r"  +", lines[0].strip())
    conv, fc, others, total = (re.split(r"  +", line.strip()) for line in (*lines[2:5], lines[6]))
    assert head[:5] == ["name", "shape", "weights", "nonzero", "sparsity %"]
    by_name = dict(zip(head, conv, strict=True))
    assert by_name["shape"] == "2x1x3x3"
    assert (by_name["weights"], by_name["nonzero"], by_name["sparsity %"]) == ("18", "9", "50.00")
    assert (by_name["filters %"], by_name["kernels %"], by_name["rows %"]) == ("50.00", "50.00", "-")
    assert (by_name["mean"], by_name["mean_abs"]) == ("-0.25000", "0.25000")
    by_name = dict(zip(head, fc, strict=True))
    assert (by_name["weights"], by_name["nonzero"], by_name["sparsity %"]) == ("1,200", "800", "33.33")
    assert (by_name["rows %"], by_name["cols %"], by_name["filters %"]) == ("33.33", "0.00", "-")
    assert others == ["other parameters", "152", "114", "25.00"]
    assert total == ["total", "1,218", "809", "33.58", "sparsity_all 32.63 % of 1,370 parameters"]
    text = "\n".join(lines[7:])
    assert "parameters 1,370, of them prunable weights 1,218" in text
    assert "MACs 1,272, with a non-zero weight 836 (65.7 %)" in text
    stored = [re.split("  +", line) for line in lines[-10:]]
    assert stored == [
        ["stored as", "bytes", "times smaller"],
        ["-" * len(lines[-10])],
        ["dense", "5,480", "1.00"],
        ["CSR", "4,811", "1.14"],
        ["bitmask", "4,043", "1.36"],
        ["relative index, 5 bits (convolutions 8)", "4,399", "1.25"],
        ["relative index, best widths (4 bits)", "4,290", "1.28"],
        ["Golomb-Rice gaps", "4,042", "1.36"],
        ["packed file (best by tensor)", "3,897", "1.41"],
        ["entropy bound", "3,848", "1.42"],
    ]
    rates = "weights 1.5 x, with all other parameters 1.4 x, stored bits 1.3 x"
    assert f"compressed against the dense network: {rates}" in text
    assert "98.50" in text
    assert "100.00" in text


def test_the_tables_columns_line_up(report: Report) -> None:
    lines = as_table(report).splitlines()
    rows = [lines[0], lines[2], lines[3]]
    assert len({len(line) for line in rows}) == 1
    assert lines[1] == lines[5] == "-" * len(rows[0])
    assert all(not line.endswith(" ") for line in lines)


def test_without_a_test_set_the_table_says_nothing_of_accuracy(report: Report) -> None:
    without = report.model_copy(update={"totals": report.totals.model_copy(update={"top1": None, "top5": None})})
    assert "top-1" in as_table(report)
    assert "top-1" not in as_table(without)


def test_a_model_without_weights_has_an_empty_report_in_every_format() -> None:
    report = measure(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)).eval(), (1, 2, 2))
    assert report.tensors == []
    assert len(as_csv(report).splitlines()) == 3
    assert json.loads(as_json(report))["tensors"] == []
    assert "MACs 0" in as_table(report)
