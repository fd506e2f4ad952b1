"""The paper's tables, cell for cell, and the file of our runs of record."""

import csv
import json
import re

import pytest

from davae.config import BLOCKS
from davae.metrics import PROTOCOLS
from davae.results import tables


def row(table: int, method: str, reference: str = "") -> dict[str, str]:
    found = [r for r in tables.read_reported(table) if (r["method"], r["reference"]) == (method, reference)]
    assert len(found) == 1
    return found[0]


def test_counts():
    counts = [len(tables.read_reported(table)) for table in (1, 2, 3, 4)]
    assert counts == [2, 2, 11, 16]  # Table 3: ten others and da-VAE; Table 4: fifteen and da-VAE
    assert len(tables.read_reported()) == sum(counts)
    assert [r["group"] for r in tables.read_reported(3)] == ["1"] * 4 + ["2"] * 4 + ["3"] * 3
    assert {r["dataset"] for r in tables.read_reported(4)} == {"STB"}
    others = [r for r in tables.read_reported(4) if r["reference"]]
    assert len(others) == 15 and sum(not r["epe_mm"] for r in others) == 6
    assert sum(not r["epe_mm"] for r in tables.read_reported(3)) == 4


@pytest.mark.parametrize(
    ("table", "method", "reference", "epe_mm", "auc"),
    [
        (1, "na-VAE", "", "12.56", "0.951"),
        (1, "da-VAE", "", "10.96", "0.969"),
        (3, "CM-VAE", "32", "19.73", "0.849"),
        (3, "Latent Align", "33", "13.14", "0.943"),
        (3, "Ge et al.", "5", "", "0.920"),
        (3, "Kulon et al.", "34", "10.92", "0.956"),
        (3, "Zimmermann", "1", "30.42", "0.675"),
        (3, "Iqbal", "2", "13.41", "0.94"),
        (4, "da-VAE", "", "6.61", "0.997"),
        (4, "Yang et al.", "33", "7.05", "0.996"),
        (4, "Yang et al.", "16", "8.66", "0.991"),
        (4, "Gao et al.", "31", "8.943", "0.984"),
        (4, "Zhou et al.", "42", "", "0.898"),
    ],
)
def test_cells_as_printed(table, method, reference, epe_mm, auc):
    assert (row(table, method, reference)["epe_mm"], row(table, method, reference)["auc"]) == (epe_mm, auc)


def test_table_2():
    kls = ("elbo", "kl_pose", "kl_cloud", "kl_rgb")
    assert [row(2, "da-VAE")[k] for k in kls] == ["-12.628", "3.264", "1.959", "1.990"]
    assert [row(2, "na-VAE")[k] for k in kls] == ["-17.618", "4.533", "2.884", "2.844"]


def test_second_hand_numbers_carry_a_footnote():
    noted = {(r["table"], r["method"]) for r in tables.read_reported() if "as given in" in r["footnote"]}
    assert noted == {("3", "Zimmermann"), ("4", "Zimmermann et al."), ("4", "Boukhayma et al.")}


def test_dashes_are_missing_values():
    assert tables.number("") is None and tables.number("0.920") == 0.92
    values = [tables.number(r["epe_mm"]) for r in tables.read_reported(4)]
    assert values[:2] == [6.37, 6.61] and values[-1] is None
    assert sorted(v for v in values if v is not None) == [v for v in values if v is not None]  # as printed


def test_unknown_table():
    with pytest.raises(ValueError, match="no Table 5; it has 1, 2, 3, 4"):
        tables.read_reported(5)


def test_markdown_keeps_reported_and_measured_apart():
    text = tables.markdown(
        3, {"da-VAE": {"EPE P1 (mm)": 11.234567}, "plain regressor": {"EPE P1 (mm)": 12.0}}
    )
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    assert lines[0] == ["group", "method", "EPE (mm), reported", "AUC, reported", "EPE P1 (mm), measured"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 2 + 11 + 1
    assert ["1", "da-VAE", "10.96", "0.969", "11.235"] in lines
    assert ["2", "Ge et al. [5]", "–", "0.920", "–"] in lines
    assert ["", "plain regressor", "–", "–", "12"] in lines
    assert re.search(r"Zimmermann \[1\] \(a\)", text) and "(a) EPE as given in [16]" in text
    assert "ELBO" not in text and "ELBO, reported" in tables.markdown(2)


def report() -> dict:
    result = {"epe_mm": 20.123456, "epe_interval_mm": [19.5, 20.75], "auc_20_50": 0.875}
    return {
        **{"dataset": "synthhand", "data": "a" * 64, "split": "test", "n": 1000, "model": "da-VAE"},
        **{"preset": "laptop", "seed": 3, "elbo": -1234.5678},
        "protocols": dict.fromkeys(PROTOCOLS, result),
        "mean_pose": {"P1": {"epe_mm": 52.0}},
        "mean_hand": {"P5": {"epe_mm": 19.0}},
        "cloud": {"chamfer_mm": None},
        "image": {"psnr_db": 24.0, "psnr_hand_db": 18.0},
        "latent": {block: {"kl": 12.0} for block in BLOCKS},
    }


def config(mask: str) -> str:
    return json.dumps({"data": {"crop": "plain", "mask": mask}})


def test_committed_measurements_can_be_read():
    for measured in tables.read_measured():
        assert tables.number(measured["P1_epe_mm"]) > 0


def test_a_run_of_record_is_appended_once(tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text(",".join(tables.MEASURED_COLUMNS) + "\n")
    first = tables.measured_row(report(), config("none"), "abc1234")
    second = tables.measured_row(report(), config("network"), "abc1234")
    for one in (first, second, first):
        tables.append_measured(one, path)
    assert tables.read_measured(path) == [first, second]
    assert [f.name for f in tmp_path.iterdir()] == ["measured.csv"]
    assert first["config"] != second["config"]
    assert (second["crop"], second["mask"]) == ("plain", "network")
    assert (first["P1_epe_mm"], first["P5_epe_low_mm"], first["seed"]) == ("20.123", "19.5", "3")
    assert first["chamfer_mm"] == "" and first["data"] == "a" * 12


def test_measurements_of_another_version_are_not_mixed_in(tmp_path):
    path = tmp_path / "measured.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerow([*tables.MEASURED_COLUMNS, "novel"])
    with pytest.raises(ValueError, match="novel"):
        tables.append_measured(tables.measured_row(report(), config("none"), "abc1234"), path)
