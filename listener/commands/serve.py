"""Serve: receive notifications, record them, and send what they mean to the tills."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import click

from listener.commands.terminal import config_option, read_settings

_LOG: Final = logging.getLogger(__name__)


@click.command()
@config_option
def serve(config: Path | None) -> None:
    """Receive notifications, record them in the ledger, and tell the tills.

    It refuses to start without a merchant's token, on a setting that it does not know, and on a
    ledger that it cannot open. The log goes to stderr, one event a line. SIGTERM or Ctrl-C stops
    it: what has come is kept, and tills are told to come back.

    \b
    A first listener.toml:
        database = "sqlite:///ledger.db"
        public_url = "https://pos.example.com"
        [merchants.200043]
        tokens = ["<API token>"]
        stores = ["303660"]

    \b
    Examples:
        listener serve --config listener.toml
        LISTENER_PORT=9000 listener serve --config listener.toml
    """
    settings = read_settings(config)
    # Only now, so that a wrong setting is told at once.
    from listener import environment, log
    from listener.web import app

    log.set_up()
    links = environment.service_links(os.environ)
    if links:
        log.event(_LOG, "service_links", passed_over=" ".join(links))
    asyncio.run(app.serve(settings))
