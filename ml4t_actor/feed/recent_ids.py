"""The newest identifiers, to recognise a repeated one."""


class RecentIds:
    """Holds at least the `capacity` newest identifiers, and at most twice as many, in O(1) each.

    Two sets take turns: when one is full the other, older one is dropped.

    Parameters
    ----------
    capacity : int
        How many.

    Examples
    --------
    >>> ids = RecentIds(2)
    >>> [ids.add(i) for i in ("a", "b", "a", "c", "d", "e", "a")]
    [True, True, False, True, True, True, True]
    """

    __slots__ = ("_capacity", "_new", "_old")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._new: set[str] = set()
        self._old: set[str] = set()

    def add(self, value: str) -> bool:
        """Add `value`; return whether it was not there."""
        new = self._new
        if value in new or value in self._old:
            return False
        if len(new) >= self._capacity:
            self._old = new
            self._new = new = set()
        new.add(value)
        return True

    def __len__(self) -> int:
        return len(self._new) + len(self._old)
