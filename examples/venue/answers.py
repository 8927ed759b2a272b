"""What the stub answers on `/info`."""

from collections.abc import Callable

from examples.venue.exchange import Exchange
from examples.venue.market import Market
from examples.venue.orders import COINS, LEVERAGE, now_ms
from examples.venue.payloads import Message, Query
from examples.venue.tape import SIZE_DECIMALS

_BASIC = ("coin", "limitPx", "oid", "side", "sz", "timestamp", "origSz", "cloid", "reduceOnly")
_SPOT_META: Message = {
    "universe": [{"tokens": [1, 0], "name": "PURR/USDC", "index": 0, "isCanonical": True}],
    "tokens": [
        {
            "name": name,
            "szDecimals": size_decimals,
            "weiDecimals": wei_decimals,
            "index": index,
            "tokenId": f"0x{index + 1:032x}",
            "isCanonical": True,
            "evmContract": None,
            "fullName": None,
            "deployerTradingFeeShare": "0.0",
        }
        for index, (name, size_decimals, wei_decimals) in enumerate((("USDC", 8, 8), ("PURR", 0, 5)))
    ],
}


def answers(market: Market, exchange: Exchange, missing: list[str]) -> dict[str, Callable[[Query], object]]:
    """Return what answers each type of query; coins in `missing` are not listed."""
    return {
        "meta": lambda q: _meta(missing),
        "allPerpMetas": lambda q: [_meta(missing)],
        "perpDexs": lambda q: [None],
        "spotMeta": lambda q: _SPOT_META,
        "spotMetaAndAssetCtxs": lambda q: [_SPOT_META, []],
        "metaAndAssetCtxs": lambda q: [_meta(missing), []],
        "allMids": lambda q: market.mids(),
        "l2Book": lambda q: market.books[q["coin"]],
        "recentTrades": lambda q: list(market.trades[q["coin"]])[::-1],
        "candleSnapshot": lambda q: market.candles[q["req"]["coin"]].snapshot(
            q["req"]["interval"], q["req"]["startTime"], q["req"].get("endTime", now_ms())
        ),
        "clearinghouseState": lambda q: exchange.clearinghouse(),
        "spotClearinghouseState": lambda q: {"balances": []},
        "openOrders": lambda q: [{k: o[k] for k in _BASIC} for o in exchange.open_orders()],
        "frontendOpenOrders": lambda q: exchange.open_orders(),
        "orderStatus": lambda q: exchange.order_status(q["oid"]),
        "historicalOrders": lambda q: [
            {"order": o.full(), "status": o.status, "statusTimestamp": o.changed_ms}
            for o in exchange.orders.values()
        ],
        "userFills": lambda q: exchange.fills[::-1],
        "userFillsByTime": lambda q: [f for f in exchange.fills if f["time"] >= q["startTime"]],
        "activeAssetData": exchange.terms.active_asset,
        "userFunding": exchange.records.funding,
        "userNonFundingLedgerUpdates": exchange.records.transfers,
        "userFees": lambda q: {"userCrossRate": "0.00045", "userAddRate": "0.00015"},
    }


def _meta(missing: list[str]) -> Message:
    # A coin keeps its number, so one that is missing is listed under another name.
    universe = [
        {
            "szDecimals": SIZE_DECIMALS[coin],
            "name": f"X{coin}" if coin in missing else coin,
            "maxLeverage": LEVERAGE[coin],
        }
        for coin in COINS
    ]
    return {"universe": universe, "marginTables": [], "collateralToken": 0}
