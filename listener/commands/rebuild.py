"""Compute the states of a ledger again from its entries."""

from pathlib import Path

import click

from listener.commands.terminal import (
    config_option,
    json_option,
    progress,
    read_settings,
    say,
    say_json,
)


@click.command()
@config_option
@json_option
def rebuild(config: Path | None, as_json: bool) -> None:
    """Compute the states again, from the entries.

    For a ledger in which `verify` finds a transaction, a sale or a stream that does not match its
    entries. The chain and the events must be sound, because they cannot be computed again: if
    they are damaged, restore a backup. Stop the listener first.

    \b
    Example:
        listener rebuild --config listener.toml
    """
    from listener.storage import rebuild as work_out

    settings = read_settings(config)
    with progress("rebuilding") as advance:
        found = work_out(settings.database, confirm=settings.confirm, progress=advance)
    counts = {"entries": found.entries, "transactions": found.transactions}
    if as_json:
        say_json(
            {"epoch": found.head.epoch, "seq": found.head.seq, "hash": found.head.hash} | counts
        )
        return
    say(f"rebuilt {found.transactions} transactions from {found.entries} entries; all is sound")
