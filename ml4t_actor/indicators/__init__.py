"""Indicators: features of a bar, VPIN, and regimes, each stepped by one event live and looped over a history."""

from ml4t_actor.indicators.features import FeatureEngine
from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.indicators.vpin import VPIN

__all__ = ["VPIN", "FeatureEngine", "RegimeModel"]
