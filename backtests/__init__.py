"""Runnable backtests: the market data they use, primary strategies, and the runs themselves."""
