"""
Commands as they travel through pools: what to send, and what may be done with it when
no answer comes.
"""

from __future__ import annotations

import hashlib
from binascii import crc_hqx

import attrs

from mpush_tw.integrations.redis._connection import Words

SLOTS = 16384


@attrs.define(eq=False)
class Command:
    """
    One command on its way.

    @ivar words: It, with its arguments.
    @ivar key: The key that it touches.
    @ivar repeatable: Whether running it twice is as good as once. Reads are, and so are
        SET, HSET, DEL, HDEL, ZADD, ZREM and EXPIRE, which leave the same behind;
        HINCRBY, LPUSH and PUBLISH are not, and neither is a swap, which would give the
        new value as the old one.
    @ivar repeated: Whether it was sent again after it may have been run.
    """

    words: Words
    key: str = ""
    repeatable: bool = True
    repeated: bool = False

    def __str__(self) -> str:
        # Without the key: that of a session is known to its device only.
        return str(self.words[0])


SWAP_SCRIPT = """\
local held = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[3] == 'any' or held == (ARGV[4] or false) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    return {1, held}
end
return {0, held}
"""
"""
Write a field of a hash under a condition, and give what it held: the atomic form of
bind and of marking a route offline (cluster 2.3, DESIGN 5c). It runs HGET and HSET, as
the original sends them one by one.

C{KEYS[1]} is the hash, C{ARGV} the field, the new value, and C{any} (write in any
case), or C{if} and what the field must hold, C{if} alone for a field that must be
missing.
"""

SWAP_DIGEST = hashlib.sha1(SWAP_SCRIPT.encode()).hexdigest()


def key_slot(key: str) -> int:
    """
    Tell which slot of a Redis Cluster a key belongs to: CRC16 of the key, or of what is
    between its first brace and the next closing one, unless that is nothing.
    """
    data = key.encode("utf-8", "replace")
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start)
        if end > start + 1:
            data = data[start + 1 : end]
    return crc_hqx(data, 0) % SLOTS
