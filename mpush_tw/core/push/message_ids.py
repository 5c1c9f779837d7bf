"""
The numbers that a node gives to the packets it starts (DESIGN 5c).
"""

from __future__ import annotations

FIRST_MESSAGE_ID = 1 << 30
LAST_MESSAGE_ID = (1 << 31) - 1
"""
Their range: positive, because clients acknowledge nothing else, and far from the small
numbers that clients use.
"""


class MessageIds:
    """
    Counts them out, and begins again after the last.
    """

    def __init__(self) -> None:
        self._last = FIRST_MESSAGE_ID - 1

    def next(self) -> int:
        """
        Give out the next one.
        """
        if self._last >= LAST_MESSAGE_ID:
            self._last = FIRST_MESSAGE_ID - 1
        self._last += 1
        return self._last
