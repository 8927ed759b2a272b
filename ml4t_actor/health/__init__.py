"""Health: how the actor is, one report of everything, and the same for Prometheus."""

from ml4t_actor.health.reporter import FeedVitals, HealthReporter, Latency, LatencyWindow, LinkVitals, Vitals

__all__ = ["FeedVitals", "HealthReporter", "Latency", "LatencyWindow", "LinkVitals", "Vitals"]
