"""A history checker for orders: random histories of a venue, a node and their faults, each from one seed.

As Jepsen does for databases: what happens is drawn from a seed, the venue is a model in this process that matches
orders with the stand-in's own code (`examples.venue.exchange`), time is virtual, and invariants are checked after every
event. The strategy, Nautilus's cache, bus, portfolio, risk and execution engines are the real ones; in place of the
adapter stands a client that sends what the adapter sends and reports what it reports.

``python -m tests.support.order_histories --seed 7`` prints a history; see there for more.
"""
