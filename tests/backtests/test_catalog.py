"""From a catalog and a JSON file to enriched signals, with nothing else to write."""

import dataclasses
import json
import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from nautilus_trader.backtest.config import BacktestEngineConfig, BacktestRunConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.config import NautilusConfig, resolve_config_path
from nautilus_trader.config import TradingNodeConfig
from nautilus_trader.model.currencies import USDC
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.catalog import ParquetDataCatalog

import backtests.catalog
from backtests.catalog import primary_signals, write_catalog
from backtests.costs import TradingCosts
from backtests.market import load_markets, nautilus_bars
from backtests.node import NodeRun, load_run_config, run_node
from backtests.primaries import MeanReverter, PrimaryActor, PrimaryConfig, batch_signals
from backtests.training import TRAIN_SHARE, choose_labels, span
from ml4t_actor.actor import ML4TActor
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.market_data import bar_buy_volume
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LabelSettings, TrainingSettings, ValidationSettings
from ml4t_actor.training.loop import TrainingLoop
from tests.support.paths import ROOT

CONFIGS = ROOT / "configs"
NODE_JSON = CONFIGS / "backtest_node.json"
CONFIG_CLASSES: dict[str, type[NautilusConfig]] = {
    "backtest.json": BacktestEngineConfig,
    "backtest_node.json": BacktestRunConfig,
    "hyperliquid_mainnet.json": TradingNodeConfig,
    "hyperliquid_sandbox.json": TradingNodeConfig,
    "hyperliquid_testnet.json": TradingNodeConfig,
    "redis_node.json": TradingNodeConfig,
}
N_TRAIN, N_TEST = 4_000, 2_000


@pytest.fixture(scope="module")
def markets():
    return load_markets("hyperliquid_5m")


@pytest.fixture(scope="module")
def test_markets(markets):
    return [dataclasses.replace(m, bars=m.bars[N_TRAIN : N_TRAIN + N_TEST]) for m in markets]


@pytest.fixture(scope="module")
def folder(markets, test_markets, tmp_path_factory) -> Path:
    """Return a folder with the models and catalogs that the JSON files name, relative to it."""
    folder = tmp_path_factory.mktemp("run")
    bars = {m.name: m.bars[:N_TRAIN] for m in markets}
    signals = {name: batch_signals(MeanReverter(), b) for name, b in bars.items()}
    quick = TrainingSettings(validation=ValidationSettings(n_folds=2, bootstrap_samples=50))
    first = int(markets[0].bars.ts_event[N_TRAIN])
    labels = choose_labels(first, markets, "mean_reversion", TradingCosts())
    charged = msgspec.structs.replace(quick, labels=labels)
    for models in ("out/models/hyperliquid_5m-mean_reversion", "models"):
        TrainingLoop(charged, feature_names=META_FEATURE_NAMES, store=ModelStore(folder / models)).train(
            bars, signals
        )
    write_catalog(test_markets, folder / "out/catalog", primary=MeanReverter)
    return folder


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def from_primary(folder) -> NodeRun:
    """Return the run of the JSON file as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_node(load_run_config(NODE_JSON))


def variant(tmp_path, *data: str, chunk_size: int | None = None, primary: bool = False) -> Path:
    """Write the node's JSON with other `data`, in that order: "bars", or the catalog folder of signals."""
    raw = json.loads(NODE_JSON.read_bytes())
    bars = raw["data"][0]
    raw["data"] = [
        bars
        if name == "bars"
        else {"catalog_path": name, "data_cls": "ml4t_actor.messages:SignalData", "client_id": "S"}
        for name in data
    ]
    raw["chunk_size"] = chunk_size
    if not primary:
        raw["engine"]["actors"] = [a for a in raw["engine"]["actors"] if "ML4TActor" in a["actor_path"]]
    file = tmp_path / "node.json"
    file.write_text(json.dumps(raw))
    return file


def values(run: NodeRun | list[EnrichedSignal], *dropped: str) -> dict[str, dict]:
    """Return the fields of each enriched signal by its id, but for the measured time and those `dropped`."""
    enriched = run.enriched if isinstance(run, NodeRun) else run
    by_id = {
        e.signal_id: {k: v for k, v in e.to_dict().items() if k not in ("latency_ns", *dropped)}
        for e in enriched
    }
    assert len(by_id) == len(enriched)
    return by_id


def test_messages_come_back_from_a_catalog_equal(tmp_path):
    numbers = [0.0, 1.0, 5e-324, math.nextafter(1.0, 0.0), 0.1, 1 / 3]
    signals, enriched = [], []
    for i, (number, status) in enumerate(zip(numbers * 2, [*Status, Status.OK], strict=True)):
        signal = SignalData(
            instrument_id=["BTC-USD-PERP.HYPERLIQUID", "ETHUSDT-PERP.BINANCE"][i % 2],
            signal=i % 3 - 1,
            strength=number,
            source='μ-trend, 2 of 3 / "quoted"',
            signal_id=f"id {i}",
            ts_event=1_700_000_000_000_000_001 + i,
            ts_init=1_700_000_000_000_000_000 + i // 2,
        )
        signals.append(signal)
        enriched.append(
            EnrichedSignal.from_signal(
                signal,
                meta_confidence=number,
                status=status,
                toxicity=number,
                vpin=number,
                regime_weight=number,
                regime=i - 1,
                volatility=number * 1e300,
                model_version="" if i % 2 else "v1",
                latency_ns=i * 2**40,
            )
        )
    catalog = ParquetDataCatalog(tmp_path)
    for cls, written in ((SignalData, signals), (EnrichedSignal, enriched)):
        catalog.write_data(written)
        read = [custom.data for custom in ParquetDataCatalog(tmp_path).query(cls)]
        assert sorted(read, key=lambda m: m.ts_event) == written
        assert all(type(m) is cls for m in read)


def test_a_catalog_holds_what_the_market_has(test_markets, folder):
    catalog = ParquetDataCatalog(folder / "out/catalog")
    assert {i.id for i in catalog.instruments()} == {m.instrument.id for m in test_markets}
    signals = [custom.data for custom in catalog.query(SignalData)]
    assert len(signals) > 300
    for market in test_markets:
        [instrument] = catalog.instruments(instrument_ids=[market.instrument.id.value])
        assert instrument.to_dict(instrument) == market.instrument.to_dict(market.instrument)
        assert catalog.bars(bar_types=[str(market.bar_type)]) == nautilus_bars(market)
        own = [s for s in signals if s.instrument_id == market.instrument.id]
        assert own == primary_signals(market, MeanReverter())


def test_taker_volumes_survive_a_catalog(tmp_path):
    from nautilus_trader.adapters.binance.common.types import BinanceBar

    market = load_markets("binance_flow_1m", synthetic=True)[1]
    market = dataclasses.replace(market, bars=market.bars[:300])
    bars = write_catalog([market], tmp_path / "catalog").query(BinanceBar)
    assert [bar_buy_volume(bar) for bar in bars] == market.bars.buy_volume.tolist()
    assert [bar.close.as_double() for bar in bars] == market.bars.close.tolist()
    assert len(set(market.bars.buy_volume)) > 100


def test_a_catalog_appears_whole_or_not_at_all(test_markets, tmp_path):
    class Fails(MeanReverter):
        def update(self, ts_event, *bar):
            if ts_event > test_markets[0].bars.ts_event[1_000]:
                raise RuntimeError("planted")
            return super().update(ts_event, *bar)

    with pytest.raises(RuntimeError, match="planted"):
        write_catalog(test_markets[:1], tmp_path / "catalog", primary=Fails)
    assert not (tmp_path / "catalog").exists()
    write_catalog(test_markets[:1], tmp_path / "catalog")
    assert [p.name for p in tmp_path.iterdir()] == ["catalog"]
    with pytest.raises(FileExistsError, match="delete it"):
        write_catalog(test_markets[:1], tmp_path / "catalog")


def test_the_catalog_command_writes_once(test_markets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backtests.catalog, "load_markets", lambda *_, **__: test_markets[:1])
    out = tmp_path / "new" / "catalog"
    backtests.catalog.main(["--out", str(out), "--signals", "mean_reversion"])
    n = len(primary_signals(test_markets[0], MeanReverter()))
    assert f"1 instruments, {N_TEST:,} bars, {n:,} signals" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    backtests.catalog.main(["--out", str(out)])
    assert "is left as it is" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_the_node_of_the_json_file_enriches_every_signal(from_primary, test_markets, folder):
    expected = {s.signal_id for m in test_markets for s in primary_signals(m, MeanReverter())}
    assert {s.signal_id for s in from_primary.signals} == expected
    assert {e.signal_id for e in from_primary.enriched} == expected
    version = ModelStore(folder / "out/models/hyperliquid_5m-mean_reversion").load_latest().version
    assert {e.model_version for e in from_primary.enriched} == {version}
    answered = [e for e in from_primary.enriched if e.is_ok]
    assert len(answered) > 0.6 * len(expected)
    assert {e.instrument_id for e in answered} == {m.instrument.id for m in test_markets}
    assert len({e.meta_confidence for e in answered if e.signal}) > 50
    assert {str(e.status) for e in from_primary.enriched} <= {"ok", "warming_up", "novel_input"}


def test_the_node_trades_and_trading_changes_no_answer(from_primary, here, tmp_path):
    raw = json.loads(NODE_JSON.read_bytes())
    # At flat size, since whether the model finds a trade worth its costs is another matter.
    raw["engine"]["strategies"][0]["config"]["sizing"] = "flat"
    file = tmp_path / "flat.json"
    file.write_text(json.dumps(raw))
    run, again = (run_node(load_run_config(file)) for _ in range(2))
    assert run.trades > 50
    assert values(run) == values(from_primary)
    assert str(again.result.stats_pnls) == str(run.result.stats_pnls)


def test_signals_of_the_catalog_are_enriched_as_those_of_a_primary(from_primary, here, tmp_path):
    run = run_node(load_run_config(variant(tmp_path, "bars", "out/catalog")))
    assert values(run) == values(from_primary)


def test_the_node_run_twice_is_identical(from_primary, here):
    again = run_node(load_run_config(NODE_JSON))
    assert list(values(again).items()) == list(values(from_primary).items())


def test_chunks_change_nothing(from_primary, here, tmp_path):
    run = run_node(load_run_config(variant(tmp_path, "bars", chunk_size=777, primary=True)))
    assert values(run) == values(from_primary)


def test_a_signal_before_its_bar_sees_the_bar_before(from_primary, here, tmp_path):
    """What NautilusTrader does with equal times, and why `load_run_config` refuses that order."""
    file = variant(tmp_path, "out/catalog", "bars")
    with pytest.raises(ValueError, match="move the signals to the end"):
        load_run_config(file)
    run = run_node(BacktestRunConfig.parse(file.read_bytes()))
    ours, theirs = values(from_primary), values(run)
    assert ours.keys() == theirs.keys()
    differing = [i for i in ours if ours[i]["volatility"] != theirs[i]["volatility"]]
    assert len(differing) > 0.9 * len(ours)


def test_a_signal_a_nanosecond_later_is_right_in_any_order(from_primary, here, test_markets, tmp_path):
    later = ParquetDataCatalog(tmp_path / "later")
    for market in test_markets:
        later.write_data(
            [
                SignalData.from_dict({**s.to_dict(), "ts_init": s.ts_init + 1})
                for s in primary_signals(market, MeanReverter())
            ]
        )
    file = variant(tmp_path, str(tmp_path / "later"), "bars")
    run = run_node(BacktestRunConfig.parse(file.read_bytes()))
    assert values(run, "ts_init") == values(from_primary, "ts_init")


def test_dates_and_text(from_primary, here, test_markets):
    times = test_markets[0].bars.ts_event
    start, end = (np.datetime64(int(times[i]), "ns") for i in (500, 1_500))
    run = run_node(load_run_config(NODE_JSON, start=f"{start}Z", end=f"{end}Z"))
    assert {int(times[500]) <= e.ts_event <= int(times[1_500]) for e in run.enriched} == {True}
    assert 0 < len(run.enriched) < len(from_primary.enriched)
    text = from_primary.text()
    n = len(from_primary.enriched)
    counted = {name: int(c) for name, c in re.findall(r"^  (\w+) +(\d+)$", text, re.MULTILINE)}
    assert sum(counted.values()) == n
    assert counted["ok"] == sum(e.is_ok for e in from_primary.enriched)
    assert f"enriched  {n:,}" in text
    assert re.search(r"p50 \d+\.\d us, p99 \d+\.\d us", text)


def test_the_text_says_which_signals_the_model_learned_from(from_primary, test_markets):
    first_bar = min(int(m.bars.ts_event[0]) for m in test_markets)
    last = max(e.ts_event for e in from_primary.enriched)
    assert first_bar - 24 * 3_600_000_000_000 < from_primary.trained_until_ns < last
    n = sum(e.ts_event < from_primary.trained_until_ns for e in from_primary.enriched)
    assert ("prove nothing" in from_primary.text()) == (n > 0)
    inside = dataclasses.replace(from_primary, trained_until_ns=last + 1)
    assert f"{len(inside.enriched):,} of them" in inside.text()


def test_a_missing_catalog_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"backtests\.catalog --out out/catalog"):
        load_run_config(NODE_JSON)


def test_the_engine_of_the_json_file_answers_as_the_node(from_primary, here, test_markets):
    market = test_markets[0]
    raw = json.loads((CONFIGS / "backtest.json").read_bytes())
    node_actors = json.loads(NODE_JSON.read_bytes())["engine"]["actors"]
    labels = next(a["config"]["labels"] for a in node_actors if "labels" in a["config"])
    raw["actors"][0]["config"]["labels"] = labels  # those of the model that is there
    engine = BacktestEngine(BacktestEngineConfig.parse(json.dumps(raw)))
    [actor] = engine.trader.actors()
    assert type(actor) is ML4TActor
    engine.add_actor(
        PrimaryActor(PrimaryConfig(bar_types=[market.bar_type], primary="backtests.primaries:MeanReverter"))
    )
    engine.add_venue(
        market.instrument.id.venue,
        OmsType.NETTING,
        AccountType.MARGIN,
        starting_balances=[Money(1_000_000, USDC)],
    )
    engine.add_instrument(market.instrument)
    engine.add_data(nautilus_bars(market))
    enriched = []
    engine.kernel.msgbus.subscribe(topic="data.EnrichedSignal*", handler=enriched.append)
    engine.run()
    expected = {
        signal_id: fields
        for signal_id, fields in values(from_primary, "model_version").items()
        if fields["instrument_id"] == market.name
    }
    assert values(enriched, "model_version") == expected
    engine.dispose()


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.json")), ids=lambda file: file.name)
def test_every_config_parses_with_its_class(file):
    assert file.name in CONFIG_CLASSES, f"say in CONFIG_CLASSES what {file.name} is"
    config = CONFIG_CLASSES[file.name].parse(file.read_bytes())
    engine = config.engine if isinstance(config, BacktestRunConfig) else config
    components = [*engine.actors, *engine.strategies]
    assert components
    for component in components:
        cls = resolve_config_path(component.config_path)
        assert isinstance(cls.parse(msgspec.json.encode(component.config)), cls)
    assert not re.search(r'"(/|~|[A-Z]:\\)', file.read_text()), "a path of one machine"


def test_the_node_config_fits_what_the_backtest_command_trains(markets):
    raw = json.loads(NODE_JSON.read_bytes())
    by_path = {
        c["config_path"].split(":")[1]: c["config"]
        for c in raw["engine"]["actors"] + raw["engine"]["strategies"]
    }
    actor, strategy = by_path["ML4TActorConfig"], by_path["EnrichedSignalStrategyConfig"]
    assert actor["labels"] == strategy["labels"]
    chosen = choose_labels(span(markets, TRAIN_SHARE)[1], markets, "mean_reversion", TradingCosts())
    assert msgspec.convert(actor["labels"], LabelSettings) == chosen
    assert actor["bar_types"] == strategy["bar_types"] == by_path["PrimaryConfig"]["bar_types"]
    assert actor["bar_types"] == [str(m.bar_type) for m in markets]
    assert raw["data"][0]["instrument_ids"] == [m.name for m in markets]
