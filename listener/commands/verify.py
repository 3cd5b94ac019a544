"""Check that a ledger is what was recorded."""

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
def verify(config: Path | None, as_json: bool) -> None:
    """Check that nothing in the ledger was changed, lost or added.

    It checks the hash chain and every number, and works the states of transactions out again from
    their entries. It works while the service runs. On damage it exits with 1 and prints the first
    bad seq.

    \b
    Examples:
        listener verify --config listener.toml
        listener verify --config listener.toml --json | jq -r .hash
    Whoever can write the file can write a new chain: store a hash elsewhere, and compare.
    """
    from listener.errors import DamagedError
    from listener.storage import verify as check

    url = read_settings(config).database
    try:
        with progress("verifying") as advance:
            found = check(url, progress=advance)
    except DamagedError as error:
        if as_json:
            say_json({"ok": False, "seq": error.seq, "error": str(error)})
        first = "" if error.seq is None else f"; the first bad seq is {error.seq}"
        raise click.ClickException(f"{error}{first}") from error
    head = found.head
    counts = {
        "entries": found.entries,
        "events": found.events,
        "transactions": found.transactions,
    }
    if as_json:
        say_json({"ok": True, "epoch": head.epoch, "seq": head.seq, "hash": head.hash} | counts)
        return
    held = ", ".join(f"{count} {name}" for name, count in counts.items())
    say(f"The ledger is sound: {held}.")
    say(f"epoch {head.epoch}  seq {head.seq}  hash {head.hash}")
