"""A trade and its orders: their ids, attempts and refusals, and when they may be sent."""
