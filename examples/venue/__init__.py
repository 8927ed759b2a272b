"""A stub of the venue Hyperliquid on loopback, for tests and trials: `python -m examples.venue --help`.

The stub plays recorded messages on the present clock and keeps an account that can be traded on. What a node needs to
reach it is in `Venue.env` and `Venue.base_url_ws`; the adapter is not patched.

`Venue.control(what, ...)`:

=============== ================================================================================================
`drop`          `mode`: 'close' or 'abort' every WebSocket connection
`malformed`     `how`: 'truncated', 'not_json', 'binary', 'wrong_types', 'nan', 'unknown_channel', 'unknown_coin' or
                'empty'; send such a frame to everybody
`send`          `text`: send it to everybody
`set`           `accept`, `frozen`, `replay`, `info_status`, `info_fail`, `info_delay_ms`, `post_delay_ms`, `missing`
`orders`        `mode`, `reject`, `lose`, `fill_fraction`, `auto_cancel`; see `Exchange`
`feed`          `paused`, `without`, `duplicates`; see `Market`
`skip_candles`  `coin`, `count`: do not stream them; the history has them
`move`          `coin`, `factor`: multiply prices
`trade`         `coin`, `side`, `size`: trade for the user, as if from elsewhere
`order`         `coin`, `side`, `size`, `price`, `cloid`: place a limit order for the user, as if from elsewhere
`fund`          `coin`, `usdc`: pay funding; the user is charged where it is negative
`fund_all`      `rate`: pay funding for all positions, as at each full hour by itself
`transfer`      `amount`, `kind`: deposit, or withdraw where it is negative; `kind` is the venue's word for it
`cash`          `amount`: add to the cash without a record
`leverage`      `coin`, `mode`, `value`: set 'cross' or 'isolated', and how much
`cancel`        `oid`: cancel an order, as if from elsewhere
=============== ================================================================================================
"""

from examples.venue.handle import Venue

__all__ = ["Venue"]
