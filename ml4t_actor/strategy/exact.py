"""The numbers of a decision as exact decimals: 0.1 + 0.2 cannot round an order past a limit."""

from decimal import ROUND_DOWN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

from ml4t_actor.strategy.causes import Cause
from ml4t_actor.strategy.sizing import as_number
from ml4t_actor.strategy.views import Number

# Wide enough for the products, differences and whole quotients below to be exact for any floats.
EXACT = Context(prec=2000, rounding=ROUND_DOWN, traps=[InvalidOperation, DivisionByZero, Overflow])
_LARGEST_EXPONENT = 330


class RefusedError(Exception):
    """New exposure is refused, for the reason given.

    Parameters
    ----------
    reason : str
        With the numbers.
    cause : str, default 'limits'
        A `Cause` of `ml4t_actor.strategy.causes`.
    """

    def __init__(self, reason: str, cause: Cause = "limits") -> None:
        super().__init__(reason)
        self.cause: Cause = cause


def positive(name: str, value: Number) -> Decimal:
    """Return the number, or raise `RefusedError` if it is not positive and finite."""
    number = decimal_of(value)
    if number is None or number <= 0:
        raise RefusedError(f"{name} was {value}, must be positive and finite", "account")
    return number


def not_negative(name: str, value: Number) -> Decimal:
    """Return the number, or raise `RefusedError` if it is negative or not finite."""
    number = optional(name, value)
    if number is None:
        raise RefusedError(f"{name} was None, must be a number", "account")
    return number


def optional(name: str, value: Number | None) -> Decimal | None:
    """Return the number, None if there is none, or raise `RefusedError` if it is negative or not finite."""
    if value is None:
        return None
    number = decimal_of(value)
    if number is None or number < 0:
        raise RefusedError(f"{name} was {value}, must be finite and not negative", "account")
    return number


def decimal_of(value: object) -> Decimal | None:
    """Return a number as the decimal that it prints as, None where it is not finite (or no float's size)."""
    number = value if isinstance(value, Decimal) else exact(as_number(value))
    return number if number.is_finite() and abs(number.adjusted()) <= _LARGEST_EXPONENT else None


def exact(value: float) -> Decimal:
    """Return a float as the decimal that it prints as."""
    return Decimal(repr(float(value)))


def text(value: Decimal) -> str:
    """Return a number as a reason words it."""
    return f"{float(value):.8g}"


def sign_of(value: Decimal) -> int:
    """Return 1, -1 or 0."""
    return (value > 0) - (value < 0)
