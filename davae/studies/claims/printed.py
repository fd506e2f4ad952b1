"""Claims on the paper's own tables: arithmetic on what it prints (`results/reported.csv`), without any run.

Such a claim is confirmed if the printed numbers have it so. Whether the methods behind two rows differ is
another question: the rows mix roots, scales, alignments and windows of the AUC (docs/paper.md).
"""

from davae.studies.claims.result import Result
from davae.studies.results.tables import parse_number, read_reported

SATURATED = 0.99  # the AUC that the paper calls saturated


def judge_printed() -> list[Result]:
    """Return the claims that the printed numbers decide, in the paper's order."""
    rhd, stb = read_reported(3), read_reported(4)
    return [_judge_counts(rhd, stb), *_judge_rhd(rhd), *_judge_stb(stb), _judge_quotations([*rhd, *stb])]


def _read(rows: list[dict[str, str]], column: str) -> dict[str, float]:
    """Return method -> number, of the methods for which one is printed."""
    numbers = ((row["method"], parse_number(row[column])) for row in rows)
    return {method: number for method, number in numbers if number is not None}


def _make(place: str, claim: str, holds: bool, found: str, note: str = "") -> Result:
    return Result(place, claim, "confirmed" if holds else "contradicted", found, note)


def _judge_counts(rhd: list[dict[str, str]], stb: list[dict[str, str]]) -> Result:
    others = [sum(bool(row["reference"]) for row in rows) for rows in (rhd, stb)]
    found = f"Table 3 lists {others[0]} others, Table 4 {others[1]}"
    return _make("1 (3)", "comparison with 9 methods on RHD, 15 on STB", others == [9, 15], found)


def _judge_rhd(rows: list[dict[str, str]]) -> list[Result]:
    group = {row["method"]: row["group"] for row in rows}
    errors, areas = _read(rows, "epe_mm"), _read(rows, "auc")
    error, area = errors.pop("da-VAE"), areas.pop("da-VAE")
    # Differences of printed decimals, so rounded as printed: 19.95 - 10.96 is 8.989999... in binary.
    less = {method: round(other - error, 2) for method, other in errors.items()}
    more = {method: round(area - other, 3) for method, other in areas.items()}
    vaes = [method for method in errors if group[method] == "1"]
    rest = [method for method in errors if group[method] == "3"]
    align = "Latent Align"
    gains = [round(errors[method] - errors[align], 2) for method in vaes if method != align]
    share = 100 * (area / areas["d-VAE"] - 1)
    third = min(rest, key=errors.__getitem__)
    return [
        _make("4.6, Table 3", "Latent Align errs by more than 6 mm less than CM-VAE and d-VAE",
              min(gains) > 6, " and ".join(f"{gain:.2f} mm less" for gain in gains)),
        _make("4.6, Table 3", "da-VAE reduces the error by about 8.99 mm", less["d-VAE"] == 8.99,
              f"{less['d-VAE']:.2f} mm against d-VAE, {less['CM-VAE']:.2f} against CM-VAE",
              f"against the best other VAE, Latent Align: {less[align]:.2f} mm"),
        _make("4.6, Table 3", "it improves the AUC by about 14 %", round(share) == 14,
              f"{share:.1f} % of d-VAE's AUC, which is {more['d-VAE']:.3f}",
              f"against Latent Align: {more[align]:.3f}"),
        _make("4.6, Table 3", "it is the best of the VAEs (group 1)",
              all(less[method] > 0 and more[method] > 0 for method in vaes),
              f"lowest EPE and highest AUC of {len(vaes) + 1}"),
        _make("4.6, Table 3", "Kulon et al. err by 0.04 mm less, with a slightly lower AUC: on par",
              less["Kulon et al."] == -0.04 and more["Kulon et al."] > 0,
              f"EPE {less['Kulon et al.']:+.2f} mm, AUC {-more['Kulon et al.']:+.3f}",
              "without intervals, \"on par\" can be neither shown nor refuted"),
        _make("4.6, Table 3", "the best of group 3 have 2.45 mm more error and 3 % lower AUC",
              less[third] == 2.45 and round(100 * more[third]) == 3,
              f"{third} et al.: {less[third]:.2f} mm, {more[third]:.3f}"),
        _make("4.6, Table 3", "it is better than most other methods on RHD",
              sum(gain > 0 for gain in more.values()) > len(more) / 2,
              f"AUC above {sum(gain > 0 for gain in more.values())} of {len(more)}, "
              f"EPE below {sum(gain > 0 for gain in less.values())} of the {len(less)} that print one"),
    ]  # fmt: skip


def _judge_stb(rows: list[dict[str, str]]) -> list[Result]:
    # By name and reference: two methods of Table 4 are called "Cai et al.", two "Yang et al."
    rows = [row | {"method": f"{row['method']} [{row['reference']}]"} for row in rows]
    errors, areas = _read(rows, "epe_mm"), _read(rows, "auc")
    error = errors.pop("da-VAE []")
    higher = sum(other > error for other in errors.values())
    first = min(errors, key=errors.__getitem__)
    saturated = sum(value > SATURATED for value in areas.values())
    count = len(rows) - 1
    return [
        _make("4.6, Table 4", "most methods have an AUC above 99 %", saturated > len(areas) / 2,
              f"{saturated} of {len(areas)}, da-VAE included"),
        _make("4.6, Table 4", "in EPE, da-VAE outperforms the other 14 methods",
              higher == 14, f"of {count} others, {len(errors)} print an EPE, {higher} of them a higher one"),
        _make("4.6, Table 4", "it errs by 0.24 mm more than Ge et al.",
              first.startswith("Ge et al.") and round(error - errors[first], 2) == 0.24,
              f"{error - errors[first]:.2f} mm more"),
    ]  # fmt: skip


def _judge_quotations(rows: list[dict[str, str]]) -> Result:
    notes = [row["footnote"] for row in rows if row["method"].startswith("Zimmermann")]
    printed = [f"{row['epe_mm']} mm, {row['auc']}" for row in rows if row["method"].startswith("Zimmermann")]
    other = [note.partition("header reads ")[2] for note in notes]
    found = "; ".join(f"{name}: {text}" for name, text in zip(("RHD", "STB"), other, strict=True))
    claim = f"Zimmermann and Brox have {printed[0]} on RHD and {printed[1]} on STB"
    note = "quoted second-hand; the other numbers are the authors' own"
    return _make("Tables 3 and 4", claim, not any(other), found, note)
