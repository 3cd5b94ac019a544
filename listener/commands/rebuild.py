"""Work out again what the entries of a ledger add up to."""

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
    """Work out the states again, from the entries.

    For a ledger in which `verify` finds a transaction, a sale or a stream that is not what its
    entries add up to. The chain and the events must be sound: they cannot be worked out again;
    restore a backup for them. Stop the listener first.

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
