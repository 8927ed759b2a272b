"""What to try on this machine alone: a stand-in for the venue Hyperliquid, and a node between it and a Redis."""
