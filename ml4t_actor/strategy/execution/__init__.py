"""What carries out the strategy's decisions, in a backtest and live."""
