"""Learning from outcomes: when to retrain, how, and whether the result may serve."""
