"""The paper's tables, compared cell by cell, and the file of the runs of record."""

import csv
import dataclasses
import re
import subprocess

import pytest
import torch

from davae.config import BLOCKS, preset
from davae.evaluation import evaluate
from davae.metrics import PROTOCOLS
from davae.studies.results import measured as record
from davae.studies.results import reductions, tables
from davae.training.davae_task import train


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


# Every cell of Tables 1, 3 and 4: table, group, method, reference, EPE, AUC. Of Table 2, what follows AUC.
PRINTED = """
1 - na-VAE - 12.56 0.951
1 - da-VAE - 10.96 0.969
3 1 CM-VAE 32 19.73 0.849
3 1 d-VAE 16 19.95 0.849
3 1 Latent_Align 33 13.14 0.943
3 1 da-VAE - 10.96 0.969
3 2 Ge_et_al. 5 - 0.920
3 2 Zhang_et_al. 6 - 0.901
3 2 Baek_et_al. 7 - 0.926
3 2 Kulon_et_al. 34 10.92 0.956
3 3 Zimmermann 1 30.42 0.675
3 3 Iqbal 2 13.41 0.94
3 3 Cai_et_al. 3 - 0.887
4 - Ge_et_al. 5 6.37 0.998
4 - da-VAE - 6.61 0.997
4 - Cai_et_al. 8 6.95 0.995
4 - Yang_et_al. 33 7.05 0.996
4 - Zhao_et_al. 43 8.18 0.987
4 - Spurr_et_al. 32 8.56 0.983
4 - Yang_et_al. 16 8.66 0.991
4 - Zimmermann_et_al. 1 8.68 0.986
4 - Gao_et_al. 31 8.943 0.984
4 - Boukhayma_et_al. 4 9.76 0.994
4 - Zhang_et_al. 6 - 0.995
4 - Baek_et_al. 7 - 0.995
4 - Iqbal_et_al. 2 - 0.994
4 - Cai_et_al. 3 - 0.994
4 - Mueller_et_al. 44 - 0.965
4 - Zhou_et_al. 42 - 0.898
"""
PRINTED_2 = {
    "na-VAE": ("-17.618", "4.533", "2.884", "2.844"),
    "da-VAE": ("-12.628", "3.264", "1.959", "1.990"),
}


def test_every_cell_is_as_printed():
    columns = ("table", "group", "method", "reference", "epe_mm", "auc")
    found = [tuple(r[c] for c in columns) for r in tables.read_reported() if r["table"] != "2"]
    lines = [line.split() for line in PRINTED.split("\n") if line]
    assert found == [tuple(cell.replace("_", " ") if cell != "-" else "" for cell in line) for line in lines]
    others = ("elbo", "kl_pose", "kl_cloud", "kl_rgb")
    assert {r["method"]: tuple(r[c] for c in others) for r in tables.read_reported(2)} == PRINTED_2
    assert not any(r[c] for r in tables.read_reported() if r["table"] != "2" for c in others)
    assert not any(r[c] for r in tables.read_reported(2) for c in ("group", "reference", "epe_mm", "auc"))


def test_second_hand_numbers_carry_a_footnote():
    noted = {(r["table"], r["method"]) for r in tables.read_reported() if "as given in" in r["footnote"]}
    assert noted == {("3", "Zimmermann"), ("4", "Zimmermann et al."), ("4", "Boukhayma et al.")}


def test_dashes_are_missing_values():
    assert tables.parse_number("") is None and tables.parse_number("0.920") == 0.92
    values = [tables.parse_number(r["epe_mm"]) for r in tables.read_reported(4)]
    assert values[:2] == [6.37, 6.61] and values[-1] is None
    assert sorted(v for v in values if v is not None) == [v for v in values if v is not None]  # as printed


def test_unknown_table():
    with pytest.raises(ValueError, match="no Table 5; it has 1, 2, 3, 4"):
        tables.read_reported(5)


def test_markdown_keeps_reported_and_measured_apart():
    text = tables.format_markdown(
        3, {"da-VAE": {"EPE P1 (mm)": 11.234567}, "plain regressor": {"EPE P1 (mm)": 12.0}}
    )
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    assert lines[0] == ["group", "method", "EPE (mm), reported", "AUC, reported", "EPE P1 (mm), measured"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 2 + 11 + 1
    assert ["1", "da-VAE", "10.96", "0.969", "11.23"] in lines
    assert ["2", "Ge et al. [5]", "–", "0.920", "–"] in lines
    assert ["", "plain regressor", "–", "–", "12"] in lines
    assert re.search(r"Zimmermann \[1\] \(a\)", text) and "(a) EPE as given in [16]" in text
    assert "ELBO" not in text and "ELBO, reported" in tables.format_markdown(2)


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
        "latent": {block: {"kl": 12.0, "active_units": 7} for block in BLOCKS},
    }


LOG = {"step": "3000", "seconds": "650.5", "val_epe_mm": "17.25"}


def measured(mask: str = "none") -> dict[str, str]:
    config = preset("laptop")
    # Weights of its own: what the row states must come from the config, whatever the preset is today.
    loss = dataclasses.replace(config.loss, alpha_pose=2e5, beta_shape=7)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, mask=mask), loss=loss)
    return record.make_row(report(), config, LOG, "abc1234")


def test_committed_measurements_can_be_read():
    for row in record.read_measured():
        assert tables.parse_number(row["P1_epe_mm"]) > 0


def test_a_run_of_record_is_appended_once(tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text(",".join(record.MEASURED_COLUMNS) + "\n")
    first, second = measured("none"), measured("network")
    for one in (first, second, first):
        record.append_measured(one, path)
    assert record.read_measured(path) == [first, second]
    assert [f.name for f in tmp_path.iterdir()] == ["measured.csv"]
    assert first["config"] != second["config"]
    assert (second["crop"], second["mask"]) == ("plain", "network")
    assert (first["P1_epe_mm"], first["P5_epe_low_mm"], first["seed"]) == ("20.123", "19.5", "3")
    assert first["chamfer_mm"] == "" and first["data"] == "a" * 12
    assert (first["alpha_pose"], first["beta_shape"], first["active_pose"]) == ("2e+05", "7", "7")
    assert (first["steps"], first["seconds"], first["val_P1_epe_mm"]) == ("3000", "650.5", "17.25")


def test_a_run_is_recorded_from_its_folder(tiny_config, prepared, tmp_path):
    path, run = tmp_path / "measured.csv", tmp_path / "run"
    path.write_text(",".join(record.MEASURED_COLUMNS) + "\n")
    train(tiny_config, prepared, run, progress=False)
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        record.read_run(run)
    found = evaluate(run, prepared, progress=False)
    record.append_measured(record.read_run(run), path)
    (row,) = record.read_measured(path)
    assert float(row["P1_epe_mm"]) == pytest.approx(found["protocols"]["P1"]["epe_mm"], rel=1e-4)
    assert (row["steps"], row["last_px"], row["model"]) == ("4", "4", "da-VAE")
    assert re.fullmatch(r"[0-9a-f]{7,}\+?|unknown", row["commit"])


def test_the_commit_of_a_row_says_whether_any_code_differs_from_it(tmp_path, monkeypatch):
    folder = tmp_path / "davae" / "studies" / "results"
    for path in (
        folder / "measured.csv",
        tmp_path / "davae" / "losses.py",
        tmp_path / "synthhand" / "rig.py",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one\n")
    for name, path in (
        ("FOLDER", folder),
        ("MEASURED", folder / "measured.csv"),
        ("ERRORS", folder / "e.npz"),
        ("CURVES", folder / "c.npz"),
    ):
        monkeypatch.setattr(record, name, path)
    assert record.find_commit() == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    assert re.fullmatch(r"[0-9a-f]{7,}", record.find_commit())
    (folder / "measured.csv").write_text("one\ntwo\n")  # recorded runs are no other code
    assert not record.find_commit().endswith("+")
    (tmp_path / "davae" / "losses.py").write_text("two\n")
    assert record.find_commit().endswith("+")


def test_measurements_of_another_version_are_not_mixed_in(tmp_path):
    path = tmp_path / "measured.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerow([*record.MEASURED_COLUMNS, "novel"])
    with pytest.raises(ValueError, match="novel"):
        record.append_measured(measured(), path)


# Reductions


@pytest.mark.parametrize("reduction", reductions.REDUCTIONS)
def test_a_converted_ratio_weighs_the_same_errors_alike(reduction):
    """Eq. 3 by hand under another reduction, with converted weights: the same up to one common factor."""
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(3, 256, 256, generator=generator)  # squared, of one picture
    pose, kl = torch.rand(63, generator=generator), torch.rand(24, generator=generator)
    ours = 1000.0 * pose.sum() + 1.0 * error.sum() + 10.0 * kl.sum()
    of_errors, of_kl = ((x.mean if name == "mean" else x.sum) for x, name in
                        zip((error, kl), reduction.split("/"), strict=True))  # fmt: skip
    of_pose = pose.mean if reduction.startswith("mean") else pose.sum
    alpha_image = 1.0 if reduction == "sum/sum" else float(error.numel())
    alpha_pose = alpha_image * reductions.convert_alpha_ratio(1000.0, reduction, "pose")
    beta = alpha_image * reductions.convert_beta_ratio(10.0, reduction, "pose")
    assert (alpha_pose * of_pose() + alpha_image * of_errors() + beta * of_kl()).item() == pytest.approx(
        ours.item(), rel=1e-5
    )


def test_reductions_that_do_not_exist_are_refused():
    for call in (
        lambda: reductions.convert_beta_ratio(1.0, "max/sum"),
        lambda: reductions.convert_beta_ratio(1.0, "sum/sum", "image"),
        lambda: reductions.convert_alpha_ratio(1.0, "sum/sum", "shape"),
    ):
        with pytest.raises(ValueError, match="choose one of"):
            call()


# Other forms of the tables

OURS = {"da-VAE": {"EPE P1 (mm)": 11.234567}, "plain regressor": {"EPE P1 (mm)": 12.0}}


def test_a_table_as_csv_reads_back_cell_for_cell():
    made = tables.lay_out(3, OURS)
    rows = list(csv.reader(tables.format_csv(3, OURS).splitlines()))
    assert rows[0] == [*made.head, "note"]
    assert [row[:-1] for row in rows[1:]] == [[c.replace("–", "") for c in row] for row in made.body]
    (zimmermann,) = [row for row in rows if row[1].startswith("Zimmermann")]
    assert "as given in [16]" in zimmermann[-1]


def test_a_table_as_latex_is_whole_and_escaped():
    made, text = tables.lay_out(3, OURS), tables.format_latex(3, OURS)
    lines = text.splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(made.body) and all(line.count(" & ") == len(made.head) - 1 for line in body)
    assert all(line.endswith(r" \\") for line in body) and lines[-1] == r"\end{table}"
    assert "–" not in text and tables._escape("a_b & 3 %") == r"a\_b \& 3 \%"


def test_tables_are_written_in_three_forms(tmp_path):
    written = tables.write_tables(tmp_path / "tables", {3: OURS})
    assert {path.name for path in written} == {
        f"table{number}.{ending}" for number in (1, 2, 3, 4) for ending in ("md", "csv", "tex")
    }
    assert (tmp_path / "tables" / "table3.md").read_text() == tables.format_markdown(3, OURS)
    assert "measured" not in (tmp_path / "tables" / "table4.csv").read_text()
