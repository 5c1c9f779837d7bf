"""
Makes C{twistd mpush} and C{twistd mpush-alloc} known to Twisted.
"""

from twisted.application.service import ServiceMaker

mpush = ServiceMaker(
    "MPush", "mpush_tw.tap", "A push server that speaks the MPush protocol.", "mpush"
)
mpush_alloc = ServiceMaker(
    "MPush alloc",
    "mpush_tw.alloc_tap",
    "Tells MPush clients which servers of a cluster to connect to.",
    "mpush-alloc",
)
