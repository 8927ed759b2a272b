"""An actor that writes down each event of an order, one JSON a line."""

import json
from pathlib import Path

from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.model.events import OrderEvent


class OrderEventsConfig(ActorConfig, frozen=True, kw_only=True):
    path: str


class OrderEvents(Actor):
    def on_start(self) -> None:
        self.msgbus.subscribe(topic="events.order.*", handler=self._write)

    def _write(self, event: OrderEvent) -> None:
        fields = {name: str(value) for name, value in type(event).to_dict(event).items()}
        order = self.cache.order(event.client_order_id)
        if order is None:  # one that is initialised only
            return
        fields |= {"quantity": str(order.quantity), "type": type(event).__name__}
        with Path(self.config.path).open("a") as file:
            file.write(json.dumps({**fields, "tags": order.tags or []}) + "\n")
