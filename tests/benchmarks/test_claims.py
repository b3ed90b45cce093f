"""The claims of speed stand on their pages, and a claim that no longer holds is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def claims(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import claims

    return claims


@pytest.fixture
def quick(claims):
    import quick

    return quick


def test_every_claim_stands_on_its_page_with_its_value(claims):
    known = claims.read()
    assert len({claim.name for claim in known}) == len(known) > 10
    for claim in known:
        page = " ".join((ROOT / claim.page).read_text().split())
        assert claim.text in page, f"{claim.name}: {claim.page} does not say {claim.text!r}"
        assert not claim.text or re.search(rf"(?<![\d.]){claim.value}(?![\d])", claim.text), claim


def test_the_row_of_speed_in_the_readme_has_the_ratios_that_are_claimed(claims):
    """Of the page's own figures, as a reader would divide them."""
    (row,) = re.findall(
        r"^\| \*\*MNIST, two cores\*\* \|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    ours, fit, ddp, _, elephas, _ = (
        [float(each) for each in re.findall(r"[\d.]+", cell)] for cell in row.split("|")
    )
    claimed = {claim.figures[0]: claim.claimed() for claim in claims.read() if claim.record == "train"}
    assert claimed["medians.fit.warm"] == pytest.approx(fit[0] / ours[0], rel=0.02)
    assert claimed["medians.ddp.warm"] == pytest.approx(ddp[0] / ours[0], rel=0.02)
    synchronous = claimed["medians.elephas synchronous.warm"]
    assert 0.98 * elephas[0] / ours[0] <= synchronous <= 1.02 * elephas[-1] / ours[0]


@pytest.mark.parametrize(
    ("measured", "holds"),
    [([2.0], True), ([1.8, 2.5], True), ([2.3], True), ([2.4], False), ([1.0, 1.7], False)],
)
def test_a_claim_holds_within_what_was_measured_and_a_tolerance(claims, measured, holds):
    claim = claims.Claim("a / b", "README.md", text="2.0 times", value=2.0, ratio="a / b")
    assert claim.holds(measured) == holds
    (row,) = claims.verdicts({"a / b": measured}, [claim])
    assert row["holds"] == holds
    assert claims.verdicts({}, [claim])[0]["holds"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {"ratio": "a"},
        {"text": "2 times", "value": 2.0},
        {"text": "2 times", "value": 2.0, "record": "train", "figures": ("a", "b"), "ratio": "a"},
        {"text": "2 times", "value": 2.0, "ratio": "a", "command": "b"},
        {"record": "train", "figures": ("a",), "ratio": "a"},
    ],
)
def test_a_claim_says_one_value_and_one_way_to_measure_it(claims, fields):
    with pytest.raises(ValueError, match="Expected either"):
        claims.Claim("a / b", "README.md", **fields)


def test_a_figure_that_the_record_lacks_is_named(claims):
    claim = claims.Claim(
        "a / b", "README.md", record="train", figures=("warm.fit", "warm.ours"), ratio="a / b"
    )
    with pytest.raises(LookupError, match=r"warm\.ours.*'ours'"):
        claim.claimed(lambda name: {"warm": {"fit": 2.0}})


def training(name, turn, seconds):
    return {"name": name, "turn": turn, "seconds": seconds, "ready": 10.0}


def records(script, *arguments):
    """Return what each benchmark would, in numbers of which the ratios are known."""
    if script == "train.py":
        seconds = {"distkeras": 10.0, "fit": 15.0, "bound": 8.0, "ddp": 50.0, "elephas synchronous": 30.0}
        turns = range(1 + int(arguments[arguments.index("--warm") + 1]))
        asked = [name for name in seconds if name in arguments]
        return {
            "trainings": {name: [training(name, turn, seconds[name]) for turn in turns] for name in asked}
        }
    if script == "exchange.py":
        ms = {"tcp": 1.0, "tls": 4.0, "checksum": 2.2}
        sizes = (0.5, 2.6, 40.0)
        return {
            "exchanges": [
                {"target": name, "megabytes": size, "ms": ms[name]} for name in ms for size in sizes
            ]
        }
    if script == "simulate_model.py":
        return {
            "windows": [
                {"window": window, "of_bare_by_cpu": 1.0, "times_one_by_one_by_cpu": 3.0} for window in (1, 5)
            ]
        }
    return {"ratios": {"distkeras / fit, rows/s": 1.5}}


def test_quick_measures_every_claim_that_it_is_named_for(claims, quick, monkeypatch, tmp_path):
    monkeypatch.setattr(quick, "measured", records)
    (tmp_path / "installed").touch()
    monkeypatch.setattr(quick, "ELEPHAS", tmp_path)
    ratios = {}
    for part in quick.PARTS.values():
        ratios |= part()
    assert {claim.ratio for claim in claims.read() if claim.ratio} <= {*ratios}
    assert ratios["jobs: fit / distkeras, warm"] == [1.5, 1.5]
    assert ratios["jobs: ddp / distkeras, warm"] == [5.0]
    assert ratios["jobs: bound / distkeras, cold"] == [0.9]
    assert ratios["exchange: tls / tcp, 40 MB"] == [4.0] * 2


def test_quick_names_broken_claims_and_fails_only_where_a_benchmark_does(
    claims, quick, monkeypatch, tmp_path, capsys
):
    def breaks(script, *arguments):
        if script == "simulate_model.py":
            raise RuntimeError("simulate_model.py has no device")
        found = records(script, *arguments)
        plain = {row["megabytes"]: row["ms"] for row in found["exchanges"] if row["target"] == "tcp"}
        for row in found["exchanges"]:
            if row["target"] == "tls":
                row["ms"] *= 5
            elif row["target"] == "checksum":
                row["ms"] = plain[row["megabytes"]] * claimed[f"checksum / tcp, {row['megabytes']:g} MB"]
        return found

    claimed = {claim.ratio.removeprefix("exchange: "): claim.value for claim in claims.read() if claim.ratio}

    monkeypatch.setattr(quick, "measured", breaks)
    out = tmp_path / "quick.json"
    monkeypatch.setattr("sys.argv", ["quick.py", "--only", "exchange", "--out", str(out)])
    assert quick.main() == 0
    said = capsys.readouterr().out
    (claim,) = [each for each in claims.read() if each.name == "TLS / plain, an exchange of 2.6 MB"]
    assert f"DOES NOT HOLD  {claim.name}: docs/security.md claims {claim.value:.2f}, measured 20.00" in said
    assert "DOES NOT HOLD  checksum" not in said
    record = json.loads(out.read_text())
    assert record["benchmark"] == "quick"
    assert record["ratios"]["exchange: tls / tcp, 40 MB"]["values"] == [20.0] * 2
    monkeypatch.setattr("sys.argv", ["quick.py", "--only", "simulator", "exchange", "--out", str(out)])
    assert quick.main() == 1
    assert "FAILED         simulator: simulate_model.py has no device" in capsys.readouterr().out
    assert json.loads(out.read_text())["ratios"]


def test_a_benchmark_without_a_record_is_a_failure(quick, monkeypatch, tmp_path):
    (tmp_path / "ends.py").write_text("print('no record')")
    (tmp_path / "fails.py").write_text("raise SystemExit('no Java')")
    monkeypatch.setattr(quick, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r"ends.py  to end with a record. Received: exit code 0"):
        quick.measured("ends.py")
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1.*no Java"):
        quick.measured("fails.py", "--quick")
