"""The result of a backtest is honest: its words follow from its numbers, and its numbers from the inputs."""

import html
import json
import math
import re
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ml4t_actor.report import (
    BacktestResult,
    TradedRun,
    assess,
    result_json,
    result_text,
    write_tearsheet,
)
from ml4t_actor.report.baselines import accounts
from ml4t_actor.report.signal_fates import reasons
from tests.support.backtest_results import (
    DAY,
    DAYS,
    START,
    backtest_result,
    flat_in,
    noise,
    run,
    scores,
    signal_fates,
    undefined_scores,
)

# The numbers.


def test_daily_returns_follow_utc_days():
    hour = DAY // 24
    sampled = TradedRun(
        name="flat",
        ts=START + np.array([2 * hour, 23 * hour, 24 * hour, 30 * hour, 80 * hour]),
        equity=np.array([101.0, 90.0, 110.0, 121.0, 60.5]),
        trades=2,
        fees=1.0,
        starting_equity=100.0,
    )
    # Midnight ends the first day; the third day has no sample.
    np.testing.assert_allclose(sampled.returns, [0.10, 0.10, 0.0, -0.5])
    assert sampled.pnl == pytest.approx(-39.5)
    assert sampled.max_drawdown == pytest.approx(0.5)
    assert sampled.sharpe.sharpe == pytest.approx(
        np.mean(sampled.returns) / np.std(sampled.returns, ddof=1) * math.sqrt(365)
    )


def test_a_ruined_account_earns_nothing_more():
    ruined = TradedRun(
        name="flat", ts=START + np.arange(4) * DAY, equity=[5.0, -1.0, 3.0, 4.0], trades=1, fees=0.0,
        starting_equity=10.0,
    )  # fmt: skip
    np.testing.assert_allclose(ruined.returns, [-1.1, 0.0, 4.0 / 3.0 - 1.0])


def test_runs_of_different_length_are_compared_on_the_same_days():
    long, short = noise(1, 3.0), noise(2, 1.0, 60)
    both = backtest_result(runs=(run("flat", long, fees=80.0), run("enriched", short, fees=20.0)))
    padded = np.concatenate((short, np.zeros(DAYS - 60)))
    assert both.sizing.days == DAYS
    assert both.sizing.turnover == 0.25
    assert both.sizing.per_day.mean == pytest.approx(np.mean(padded - long), rel=1e-9)
    assert both.sizing.at_equal_turnover.mean == pytest.approx(np.mean(padded - 0.25 * long), rel=1e-9)


def test_random_thinning_shows_no_difference_at_equal_turnover():
    rng = np.random.default_rng(8)
    trades = rng.normal(-4e-4, 10e-4, (200, 40))
    kept = rng.random(trades.shape) < 0.3
    thinned = backtest_result(
        runs=(
            run("flat", trades.sum(1), trades=8_000, fees=8_000.0),
            run("enriched", (trades * kept).sum(1), trades=int(kept.sum()), fees=float(kept.sum())),
        )
    )
    assert thinned.sizing.per_day.direction == 1
    assert thinned.sizing.at_equal_turnover.direction == 0


def test_numbers_in_the_text_are_those_of_the_inputs():
    given = backtest_result(runs=(run("flat", noise(1, 0.7)), run("enriched", noise(2, 1.9), fees=50.0)))
    text = result_text(given)
    flat, enriched = given.runs
    us = np.sort(given.latency_ns / 1e3)
    expected = [
        f"p50 {np.percentile(us, 50):.1f}, p99 {np.percentile(us, 99):.1f}, max {us[-1]:.1f} us",
        "ok 900, warming_up 60, stale_data 30, without an answer 10",
        f"{sum(c > 0.53 for c in given.confidence)} of 900 signals with status ok passed break-even",
        "2023-11-15 00:00 to 2024-03-14 00:00 UTC",
        "9.0 bp a round trip",
        f"{flat.equity[-1] - 10_000:+.2f} {flat.equity[-1] / 10_000 - 1:+.2%}",
        f"{enriched.equity[-1] - 10_000:+.2f} {enriched.equity[-1] / 10_000 - 1:+.2%}",
        f"enriched less flat: {1e4 * np.mean(noise(2, 1.9) - noise(1, 0.7)):+.2f} bp",
        f"(50.0% of flat, by fees): {1e4 * np.mean(noise(2, 1.9) - 0.5 * noise(1, 0.7)):+.2f} bp",
        "from 120 days, 95 %",
        "fold AUCs 0.520 0.490 0.510",
        "top 8 of 10",
    ]
    for number in expected:
        assert number in flat_in(text)
    for part in (given.validation, given.test):
        assert f"{part.auc_within_side:.3f} [0.490, 0.530]" in text
        assert f"{part.log_loss_skill:+.4f} [-0.0020, +0.0040]" in text
        assert f"accuracy {part.accuracy:.3f} majority {part.majority_accuracy:.3f}" in flat_in(text)
        assert f"{part.brier:.4f} constant base rate {part.brier_baseline:.4f}" in flat_in(text)
        for row in part.reliability:
            bounds = f"[{row.rate_low:.3f}, {row.rate_high:.3f}]"
            assert f"{row.mean_p:.3f} {row.rate:.3f} {bounds} {row.n}" in flat_in(text)
    assert "feature_7" in text
    assert "feature_8" not in text


def test_bins_off_the_diagonal_are_marked():
    off = scores()
    first = msgspec.structs.replace(off.reliability[0], mean_p=0.9)
    off = msgspec.structs.replace(off, reliability=(first, *off.reliability[1:]))
    text = result_text(backtest_result(test=off))
    assert re.search(r"^  off +0\.900", text, re.MULTILINE)


# The outputs.


def extremes() -> dict[str, BacktestResult]:
    none = {name: np.empty(0) for name in ("ts", "confidence", "toxicity", "regime_weight", "regime")}
    idle = (run("flat", np.zeros(3), trades=0), run("enriched", np.zeros(3), trades=0))
    return {
        "usual": backtest_result(),
        "fates": backtest_result(fates=signal_fates()),
        "nothing": backtest_result(
            signals=0, statuses={}, latency_ns=np.empty(0), runs=(), feature_importance={}, fold_aucs=(),
            instruments=(), test=None, validation=undefined_scores(), **none,
        ),
        "no trades": backtest_result(runs=idle),
        "undefined": backtest_result(
            test=undefined_scores(), validation=undefined_scores(), fold_aucs=(math.nan, math.nan),
            confidence=np.full(900, math.nan), toxicity=np.full(900, math.nan), latency_ns=np.zeros(5),
        ),
        "one of each": backtest_result(
            latency_ns=[5_000], ts=[START], confidence=[0.6], toxicity=[0.1],
            regime_weight=[0.5], regime=[-1],
            runs=(TradedRun("flat", np.array([START]), np.array([9.0]), 1, 0.1, 10.0),),
        ),
        "huge": backtest_result(
            title="long " * 60, data_label="x" * 300, primary="p" * 200, instruments=("I" * 90,) * 40,
            feature_importance={"f" * 200: 1.0}, model_version="v" * 150,
            runs=(
                run("flat" * 30, np.tile([-0.5, -0.5001], 60), fees=1e15),
                TradedRun("flat", START + np.arange(40) * DAY, 1e15 - np.arange(40.0), 10**6, 1e14, 1e14),
            ),
        ),
        "synthetic": backtest_result(synthetic=True),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(extremes()))
def test_text_is_ascii_and_within_100_columns(name: str):
    text = result_text(extremes()[name])
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    assert "Did it help?" in text
    assert "nan" not in text.lower().replace("binance", "")
    assert text.index("Did it help?") > text.index("Traded")


@pytest.mark.parametrize("name", list(extremes()))
def test_json_is_strict_and_complete(name: str):
    given = extremes()[name]
    plain = json.loads(json.dumps(result_json(given), allow_nan=False))
    assert plain["synthetic"] is given.synthetic
    assert plain["outcome"] == assess(given).answer
    assert plain["signals"] == given.signals
    assert len(plain["runs"]) == len(given.runs)
    for run_given, run_plain in zip(given.runs, plain["runs"], strict=True):
        assert run_plain["pnl"] == run_given.equity[-1] - run_given.starting_equity
        assert run_plain["daily_return"] == run_given.returns.tolist()
    assert (plain["test"] is None) == (given.test is None)


def page_without_plotly(path: Path) -> str:
    page = path.read_text(encoding="utf-8")
    start = page.index("<script>") + len("<script>")
    return page[:start] + page[page.index("</script>\n</head>") :]


def test_page_of_all_extremes(tmp_path: Path):
    results = list(extremes().values())
    written = write_tearsheet(results, tmp_path / "deep" / "page.html")
    page = page_without_plotly(written)
    for i in range(1, len(results) + 1):
        assert f'id="backtest-{i}"' in page
    for chart in ("equity", "reliability", "confidence", "context", "features", "folds", "latency"):
        assert page.count(f'id="backtest-1-{chart}"') == 1
    assert "nan" not in re.sub(
        r"binance", "", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL).lower()
    )
    assert str(tmp_path) not in page
    assert page.count("Did it help?") == len(results) + 1


def test_page_opens_offline_and_holds_plotly_once(tmp_path: Path):
    from plotly.offline import get_plotlyjs

    written = write_tearsheet([backtest_result(), backtest_result()], tmp_path / "page.html")
    whole = written.read_text(encoding="utf-8")
    assert whole.count(get_plotlyjs()[:2_000]) == 1
    page = page_without_plotly(written)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
    assert "cdn" not in page


def test_outputs_are_the_same_twice(tmp_path: Path):
    first = write_tearsheet([backtest_result()], tmp_path / "a.html").read_bytes()
    assert write_tearsheet([backtest_result()], tmp_path / "b.html").read_bytes() == first
    assert result_text(backtest_result()) == result_text(backtest_result())
    assert result_json(backtest_result()) == result_json(backtest_result())


def test_every_output_says_what_became_of_the_signals(tmp_path: Path):
    given = backtest_result(fates=signal_fates(seed=4))
    text, plain = flat_in(result_text(given)), result_json(given)
    page = page_without_plotly(write_tearsheet([given], tmp_path / "a.html"))
    found = reasons(given.fates)
    assert sum(reason["signals"] for reason in plain["fates"]["reasons"]) == given.signals
    most = max(reason.signals for reason in found)
    for reason, as_json in zip(found, plain["fates"]["reasons"], strict=True):
        assert f"{reason.fate} {reason.signals} {reason.labelled} {reason.paid:.1%} {reason.pnl:+.2%}" in text
        assert as_json["pnl"] == reason.pnl
        bar = f'<tr><td>{reason.fate}<small>{html.escape(reason.meaning)}</small></td><td class="bar"><span class="'
        width = re.search(re.escape(bar) + r'\w*" style="width: ([\d.]+)%"', page)
        assert width is not None
        assert float(width[1]) == pytest.approx(100.0 * reason.signals / most, abs=0.05)
    assert f"{given.fates.passed.sum()} of 1,000 signals passed break-even" in text
    for line in accounts(given):
        assert f"{line.name} {line.trades} {line.pnl:+.2%}" in text
    assert [line["name"] for line in plain["accounts"]] == [line.name for line in accounts(given)]
    sentence = assess(given).sentence
    assert sentence in text
    assert plain["answer"] == sentence
    assert page.index(html.escape(sentence)) < page.index("What became of the signals")


def test_synthetic_is_shouted_everywhere(tmp_path: Path):
    made_up = backtest_result(synthetic=True)
    text = result_text(made_up)
    assert "SYNTHETIC" in text.splitlines()[0]
    assert assess(made_up).sentences[-1].startswith("All of this is on a SYNTHETIC market")
    page = page_without_plotly(write_tearsheet([made_up, backtest_result()], tmp_path / "a.html"))
    assert "SYNTHETIC DATA IN 1 OF 2 BACKTESTS" in page
    assert page.count('class="synthetic"') == 2
    assert page.count('class="tag">SYNTHETIC') == 2
    real = page_without_plotly(write_tearsheet([backtest_result()], tmp_path / "b.html"))
    assert "SYNTHETIC" not in real
    assert "SYNTHETIC" not in result_text(backtest_result())


def test_names_cannot_inject_anything(tmp_path: Path):
    evil = "</script><script>alert(1)</script>\x1b[2J\nProfit: 900 % é"
    hostile = backtest_result(
        title=evil, data_label=evil, primary=evil, instruments=(evil,), model_version=evil, model_kind=evil,
        statuses={evil: 3}, feature_importance={evil: 1.0}, runs=(run(evil, noise(1, 0.0)),),
    )  # fmt: skip
    whole = write_tearsheet([hostile], tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script>alert" not in whole
    assert "&lt;script&gt;alert(1)" in whole
    text = result_text(hostile)
    assert text.isascii()
    assert "\x1b" not in text
    assert not any(line.startswith("Profit") for line in text.splitlines())


def test_a_missing_plotly_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"ml4t_actor\[report\]"):
        write_tearsheet([backtest_result()], tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_a_page_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one result"):
        write_tearsheet([], tmp_path / "a.html")


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_start": START - 2 * DAY}, "before training ends"),
        ({"signals": 10}, "990 statuses for 10 signals"),
        ({"confidence": np.zeros(3)}, "differ in length"),
        ({"fates": signal_fates(7)}, "7 fates for 1000 signals"),
        ({"runs": (run("flat", noise(1, 0.0)),) * 2}, "different names"),
    ],
)
def test_results_that_contradict_themselves_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        backtest_result(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ts": [], "equity": []}, "at least one"),
        ({"ts": [START]}, "one time for each equity"),
        ({"ts": [START, START - 1]}, "order of time"),
        ({"equity": [1.0, math.nan]}, "row 1 is nan"),
        ({"starting_equity": 0.0}, "must be positive"),
        ({"fees": math.nan}, "nan fees"),
        ({"trades": -1}, "-1 trades"),
    ],
)
def test_runs_that_cannot_be_are_refused(changes: dict[str, object], message: str):
    given = {"name": "flat", "ts": [START, START + DAY], "equity": [1.0, 2.0], "trades": 1, "fees": 0.0}
    with pytest.raises(ValueError, match=message):
        TradedRun(**{**given, "starting_equity": 1.0, **changes})
