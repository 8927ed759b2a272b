"""The equity of an account whose venue records what happens to it beside trades, and what of that is of the day."""

from decimal import Decimal

from ml4t_actor.strategy.account.day_opening import opening_equity
from ml4t_actor.strategy.account.equity import Equity
from ml4t_actor.strategy.account.reservations import AccountKey
from ml4t_actor.strategy.account.statements import AccountStatement, Transfer

_ZERO = Decimal(0)


class RecordedEquity(Equity):
    """Counts what a venue has recorded: transfers shift the day's opening, funding and the rest are its result."""

    def _settle_opening(
        self, key: AccountKey, statement: AccountStatement, transferred: Decimal, funded: Decimal
    ) -> None:
        """Let the day have opened with what it did, if that was not known: what is yet to be counted is the day's."""
        unsettled = self.unsettled.pop(key, None)
        if unsettled is None or key not in self.opening:
            return
        of_today = (of.get(key, _ZERO) for of in (self.transferred, self.funding, self.unexplained))
        opening = opening_equity(unsettled, statement, sum(of_today, transferred + funded))
        if opening is None:
            self._strategy.log.warning(f"what {key[0]} was worth at the day's opening can't be found out")
        else:
            self.opening[key] = opening

    def _settle_by_report(self, key: AccountKey, equity: Decimal) -> None:
        """Let the day have opened with no less than is reported, where nothing says what was traded by then.

        Of what turns out to be there it can't be told whether it was gained today.
        """
        if self.unsettled.pop(key, None) is not None and key in self.opening:
            self.opening[key] = max(self.opening[key], equity - self.transferred.get(key, _ZERO))

    def _count_records(
        self, key: AccountKey, transfers: list[Transfer], funded: Decimal, equity: Decimal
    ) -> None:
        for transfer in transfers:
            if transfer.amount is None:
                self._strategy.log.error(
                    f"{key[0]} has recorded `{transfer.kind}`; what it did to the account is not in the record, and "
                    "counts as profit or loss"
                )
            else:
                self._shift_opening(key, transfer.amount, transfer.kind, equity)
        if funded:
            total = self.funding[key] = self.funding.get(key, _ZERO) + funded
            self._strategy.log.info(f"funding of {funded:.6f} {key[1]} at {key[0]}, {total:.6f} today")

    def _add_unexplained(self, key: AccountKey, amount: Decimal) -> None:
        total = self.unexplained[key] = self.unexplained.get(key, _ZERO) + amount
        what = "lost: it counts as a loss" if amount < 0 else "gained: it is made no use of"
        self._strategy.log.error(
            f"{abs(amount):.2f} {key[1]} at {key[0]} that no trade, funding or transfer explains are {what} today; "
            f"{total:.2f} of the day are unexplained"
        )

    def _shift_opening(self, key: AccountKey, transfer: Decimal, kind: str, equity: Decimal) -> None:
        """Shift the day's opening equity by a transfer."""
        if key in self.opening:
            self.transferred[key] = self.transferred.get(key, _ZERO) + transfer
            if (
                self.day_open(key) <= 0
            ):  # more was taken out than there was in the morning: the day begins anew
                self.transferred[key] = equity - self.opening[key]
        self._strategy.log.warning(
            f"{kind} of {transfer:.2f} {key[1]} at {key[0]}: equity {equity:.2f}, "
            f"the day's loss is measured from {self.day_open(key) if key in self.opening else equity:.2f}"
        )
