"""The feed: bars and trades on their way in, each once, in order, none before its closing time."""

from ml4t_actor.feed.market_feed import MarketFeed
from ml4t_actor.feed.ports import Ports
from ml4t_actor.feed.warmup import MAX_HISTORY_BARS, needed_bars

__all__ = ["MAX_HISTORY_BARS", "MarketFeed", "Ports", "needed_bars"]
