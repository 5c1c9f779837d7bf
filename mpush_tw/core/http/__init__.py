"""
The HTTP proxy for devices: where a request may go, what it looks like there, and what
the device gets back (server 15).

Reading order: L{urls<mpush_tw.core.http.urls>}, C{reach}, C{headers}, C{exchange}. The
device's side is L{mpush_tw.core.handlers.http_proxy}; who really speaks HTTP is an
L{IHttpFetcher<mpush_tw.interfaces.IHttpFetcher>}.
"""
