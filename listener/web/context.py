"""The keys under which handlers find the parts in their application; ``web/app.py`` fills them."""

from aiohttp import web

from listener.hub.hub import Hub
from listener.ingest import Ingest
from listener.keys import KeyStore
from listener.ledger.promise import Ledger
from listener.lifecycle import Clock, Lifecycle
from listener.settings import Settings
from listener.web.metrics import Metrics
from listener.web.refusals import Refusals
from listener.web.shares import Shares
from listener.web.till.sessions import Sessions

CLOCK = web.AppKey("clock", Clock)
SETTINGS = web.AppKey("settings", Settings)
LEDGER: web.AppKey[Ledger] = web.AppKey("ledger")
KEYS: web.AppKey[KeyStore] = web.AppKey("keys")
HUB = web.AppKey("hub", Hub)
INGEST = web.AppKey("ingest", Ingest)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
METRICS = web.AppKey("metrics", Metrics)
REFUSALS = web.AppKey("refusals", Refusals)
SESSIONS = web.AppKey("sessions", Sessions)
SHARES = web.AppKey("shares", Shares)
