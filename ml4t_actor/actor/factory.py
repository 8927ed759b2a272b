"""What the actor takes up at its start: the newest model that fits, the ledger, and what learns from it."""

from collections.abc import Callable, Sequence

from ml4t_actor.actor.redis_bridge import NOT_INSTALLED, check_answers, redis_is_installed
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger, LedgerError
from ml4t_actor.lifecycle import ChampionLifecycle, LifecycleLoop
from ml4t_actor.lifecycle.champion import Log
from ml4t_actor.nautilus.components import Cache, unix_nanos_to_iso8601
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import BarType
from ml4t_actor.registry import ModelStore
from ml4t_actor.training.worker import InlineTrainer, RetrainWorker, Trainer


def check_requirements(config: ML4TActorConfig, cache: Cache, bar_types: Sequence[BarType]) -> None:
    """Raise `RuntimeError` where a live actor could not do its work: an instrument is missing, or a Redis it needs."""
    ids = [bar_type.instrument_id for bar_type in bar_types]
    missing = [instrument_id.value for instrument_id in ids if cache.instrument(instrument_id) is None]
    if missing:
        raise RuntimeError(
            f"the node has no instrument {', '.join(missing)}: load it with the `instrument_provider` of the data "
            "client, and check that the venue answered"
        )
    if config.redis_required:
        reason = check_answers(config.redis) if redis_is_installed() else NOT_INSTALLED
        if reason:
            raise RuntimeError(f"`redis_required` is true, but Redis does not answer: {reason}")


def load_newest(store: ModelStore, loop: InferenceLoop, now_ns: int, log: Log) -> None:
    """Let the newest bundle serve that is whole and fits; none is a normal state."""
    bundle = store.load_latest(loop.swap)
    for version, reason in store.refusals.items():
        log.error(f"model {version} is refused: {reason}")
    if bundle is None:
        log.warning(
            f"no model in {str(store.root)!r}: signals get the default confidence and status `no_model`"
        )
        return
    log.info(f"model {bundle.version} serves")
    learned_until = bundle.provenance.seen_until_ns
    if learned_until > now_ns:
        log.warning(
            f"model {bundle.version} learned from what became known until {unix_nanos_to_iso8601(learned_until)}, "
            f"and it is {unix_nanos_to_iso8601(now_ns)}: results look ahead; begin later, or train on less"
        )


def open_ledger(config: ML4TActorConfig, actor: str, live: bool, note: Callable[[str, str], None]) -> Ledger:
    """Return the ledger: in a backtest, and where the file cannot be used, one in memory."""
    if live:
        path = config.ledger_path
        ledger = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            ledger = Ledger(path, actor, config.ledger)
            ledger.snapshots()  # one that cannot be read now has nothing to go on from
            return ledger
        except (LedgerError, OSError) as e:
            if ledger is not None:
                ledger.close(0.0)
            note("no ledger", f"{e}; signals are kept in memory only, and the model stays as it is")
    return Ledger(None, actor, config.ledger)


def build_lifecycle(
    config: ML4TActorConfig,
    loop: InferenceLoop,
    store: ModelStore,
    ledger: Ledger,
    *,
    publish: Callable[[Data], None],
    deliver: Callable[[Callable[[], None]], None],
    progress: Callable[[str, float], None],
    now: Callable[[], int],
    log: Log,
    live: bool,
) -> LifecycleLoop:
    """Return the learning loop that the config describes; see `ChampionLifecycle` and `LifecycleLoop`."""
    trainer: Trainer | None = None
    if config.retrain == "on":
        if not live:
            trainer = InlineTrainer(ledger, store)
        elif ledger.path is not None:
            trainer = RetrainWorker(
                ledger,
                ledger.path,
                store,
                timeout_s=config.retraining.timeout_seconds,
                accept=loop.check,
                progress=progress,
            )
    succession = ChampionLifecycle(
        loop,
        ledger,
        store,
        trainer,
        settings=config.retraining,
        training=config.training_settings(),
        feature_names=config.feature_names,
        accuracy_drop_threshold=config.retrain_accuracy_drop_threshold,
        interval_bars=config.retrain_interval_bars,
        min_samples=config.retrain_min_samples,
        publish=publish,
        deliver=deliver,
        now=now,
        log=log,
        live=live,
    )
    return LifecycleLoop(
        loop,
        ledger,
        succession,
        labels=config.labels,
        publish=publish,
        now=now,
        log=log,
        live=live,
        has_past=live and config.feed.warm_up,
    )
