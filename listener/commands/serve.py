"""Serve: receive notifications, record them, and tell the tills."""

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from listener.commands.terminal import config_option, read_settings

_LOG: Final = logging.getLogger(__name__)

if TYPE_CHECKING:
    from listener.settings import Settings

WORKERS_MAX: Final = 64


@click.command()
@config_option
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help="Run this many processes on the one port; more than one need a ledger on PostgreSQL.",
)
@click.option("--shared-port", is_flag=True, hidden=True)
def serve(config: Path | None, workers: int, shared_port: bool) -> None:
    """Receive notifications, record them, and tell the tills.

    It refuses to start without a merchant's token, on a setting that it does not know, and on a
    ledger that it cannot open. The log goes to stderr, one event a line. SIGTERM or Ctrl-C stops
    it: everything that arrived is stored, and tills are told to come back.

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
        listener serve --config listener.toml --workers 4
    """
    settings = read_settings(config)
    # Imported late, so that a wrong setting is reported at once.
    from listener import environment, log
    from listener.web.process import serve as run

    log.set_up()
    if workers > 1:
        _serve_together(settings, config, workers)
        return
    links = environment.service_links(os.environ)
    if links:
        log.event(_LOG, "service_links", passed_over=" ".join(links))
    asyncio.run(run(settings, shares_port=shared_port))


def _serve_together(settings: "Settings", config: Path | None, count: int) -> None:
    from listener.commands.workers import Workers, shares_port
    from listener.storage.postgres.location import is_postgres

    if not is_postgres(settings.database):
        raise click.UsageError("more than one worker needs a ledger on PostgreSQL")
    if not shares_port():
        raise click.UsageError("this system cannot spread a port over several workers")
    arguments = () if config is None else ("--config", str(config))
    status = Workers(settings, arguments, count=count).run()
    if status:
        raise click.exceptions.Exit(status)
