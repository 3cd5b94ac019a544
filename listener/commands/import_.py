"""Move a ledger from a file to PostgreSQL, or back."""

import click

from listener.commands.terminal import json_option, progress, say, say_json
from listener.stopping import interrupted_to_stop


@click.command(name="import")
@click.option("--from", "source", metavar="URL", required=True, help="The present ledger.")
@click.option(
    "--to",
    "target",
    metavar="URL",
    required=True,
    help="The place for the copy, without a ledger yet.",
)
@json_option
def import_(source: str, target: str, as_json: bool) -> None:
    """Copy a ledger from a file to PostgreSQL, or back.

    Every number and hash stays the same, and so does the epoch.

    Stop the listener first, and serve only one of the two afterwards: tills resume where they were,
    and would believe both. The URLs are as in the setting `database`.

    \b
    Examples:
        listener import --from sqlite:///ledger.db --to postgresql://listener@db1,db2/listener
        listener import --from postgresql://listener@db1/listener --to sqlite:///ledger.db
    """
    from listener.storage.postgres.location import require_driver

    require_driver()
    from listener.storage.postgres.importing import import_ledger

    with interrupted_to_stop(), progress("importing") as advance:
        head = import_ledger(source, target, progress=advance)
    counts = {"entries": head.seq, "events": head.events, "transactions": head.transactions}
    if as_json:
        say_json({"epoch": head.epoch, "seq": head.seq, "hash": head.hash} | counts)
        return
    held = ", ".join(f"{count} {name}" for name, count in counts.items())
    say(f"imported {held}; epoch {head.epoch}, hash {head.hash}")
