"""What a live actor cannot do without."""

from collections.abc import Sequence

from ml4t_actor.actor.redis_bridge import NOT_INSTALLED, check_answers, redis_is_installed
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.nautilus.components import Cache
from ml4t_actor.nautilus.model import BarType


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
