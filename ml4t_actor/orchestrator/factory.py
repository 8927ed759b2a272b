"""What an orchestrator is made of: the inference loop, the newest model that fits, the ledger, and the lifecycle."""

from collections.abc import Callable

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.feed.bar_times import bar_interval_ns
from ml4t_actor.indicators.features import load_feature_classes
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger, LedgerError
from ml4t_actor.lifecycle import ChampionLifecycle, Host, LifecycleLoop
from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.components import unix_nanos_to_iso8601
from ml4t_actor.nautilus.model import BarType
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.training.worker import InlineTrainer, RetrainWorker, Trainer


def build_inference(config: ML4TActorConfig) -> InferenceLoop:
    """Return the inference loop that the config describes, its instruments added, without a model."""
    loop = InferenceLoop(
        model_path=config.model_path,
        default_confidence=config.default_confidence,
        feature_names=config.feature_names,
        custom_features=load_feature_classes(config.custom_features),
        labels=config.labels,
        vpin=config.vpin,
        volatility_halflife_bars=config.volatility_halflife_bars,
        max_bar_age_bars=config.max_bar_age_bars,
        max_clock_skew_ns=config.max_clock_skew_ms * 1_000_000,
        max_signal_age_ns=int(config.max_signal_age * SECOND_NS),
        timeout_ns=config.inference_timeout_ms * 1_000_000,
    )
    for text in config.bar_types:
        bar_type = BarType.from_str(text)
        loop.add_instrument(bar_type.instrument_id, bar_interval_ns(bar_type), trades=config.trade_ticks)
    return loop


def load_newest(loop: InferenceLoop, host: Host) -> None:
    """Let the newest bundle serve that is whole and fits, and log which, and which not."""
    found = loop.load_model(
        refused=lambda version, reason: host.log.error(f"model {version} is refused: {reason}")
    )
    bundle = loop.bundle
    if not found or bundle is None:
        host.log.warning(
            f"no model in {str(loop.model_path)!r}: signals get the default confidence and status `no_model`"
        )
        return
    host.log.info(f"model {bundle.version} serves")
    if host.now():
        _warn_if_it_looks_ahead(bundle, host)
    else:  # a clock that goes by the events has not begun
        host.call_later("comparing a model's time", 0.0, lambda: _warn_if_it_looks_ahead(bundle, host))


def _warn_if_it_looks_ahead(bundle: ModelBundle, host: Host) -> None:
    learned_until = bundle.provenance.seen_until_ns
    if learned_until > host.now():
        host.log.warning(
            f"model {bundle.version} learned from what became known until {unix_nanos_to_iso8601(learned_until)}, "
            f"and it is {unix_nanos_to_iso8601(host.now())}: results look ahead; begin later, or train on less"
        )


def open_ledger(
    config: ML4TActorConfig, owner: str, live: bool, report: Callable[[str, str], None]
) -> Ledger:
    """Return the ledger: in a backtest, and where the file cannot be used, one in memory."""
    if live:
        path = config.ledger_path
        ledger = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            ledger = Ledger(path, owner, config.ledger)
            ledger.snapshots()  # one that cannot be read now has nothing to go on from
            return ledger
        except (LedgerError, OSError) as e:
            if ledger is not None:
                ledger.close(0.0)
            report("no ledger", f"{e}; signals are kept in memory only, and the model stays as it is")
    return Ledger(None, owner, config.ledger)


def build_lifecycle(
    config: ML4TActorConfig, loop: InferenceLoop, store: ModelStore, ledger: Ledger, host: Host
) -> LifecycleLoop:
    """Return the lifecycle loop that the config describes; see `ChampionLifecycle` and `LifecycleLoop`."""
    champion = ChampionLifecycle(
        loop,
        ledger,
        store,
        _trainer(config, loop, store, ledger, host) if config.retrain == "on" else None,
        settings=config.retraining,
        training=config.training_settings(),
        feature_names=config.feature_names,
        accuracy_drop_threshold=config.retrain_accuracy_drop_threshold,
        interval_bars=config.retrain_interval_bars,
        min_samples=config.retrain_min_samples,
        retrain_delay_s=config.retrain_delay,
        host=host,
    )
    return LifecycleLoop(
        loop,
        ledger,
        champion,
        labels=config.labels,
        host=host,
        has_past=host.live and config.feed.warm_up,
    )


def _trainer(
    config: ML4TActorConfig, loop: InferenceLoop, store: ModelStore, ledger: Ledger, host: Host
) -> Trainer | None:
    if not host.live:
        return InlineTrainer(ledger, store)
    if ledger.path is None:
        return None

    def report_progress(what: str, share: float) -> None:  # from the thread that watches the child
        host.call_soon("logging progress", lambda: host.log.info(f"retraining: {what} ({share:.0%})"))

    return RetrainWorker(
        ledger,
        ledger.path,
        store,
        timeout_s=config.retraining.timeout_seconds,
        accept=loop.check,
        progress=report_progress,
    )
