"""
Makes C{twistd mpush} known to Twisted.
"""

from twisted.application.service import ServiceMaker

mpush = ServiceMaker(
    "MPush", "mpush_tw.tap", "A push server that speaks the MPush protocol.", "mpush"
)
