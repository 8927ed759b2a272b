"""Learning from outcomes: when to retrain."""
