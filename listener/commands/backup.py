"""Copy a ledger while it is served."""

from pathlib import Path

import click

from listener.commands.terminal import (
    config_option,
    json_option,
    progress,
    read_settings,
    say,
    say_json,
    shown,
)
from listener.stopping import interrupted_to_stop


@click.command()
@config_option
@json_option
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
def backup(config: Path | None, as_json: bool, destination: Path) -> None:
    """Copy the ledger to DEST, whether the service runs or not.

    DEST must not exist yet; it appears once it is complete and on the disk. The first `serve` on
    the copy begins a new epoch, so that no till mistakes it for the original.

    \b
    Examples:
        listener backup --config listener.toml /var/backups/ledger-$(date +%F).db
    To check that a copy is sound:
        LISTENER_DATABASE=sqlite:////var/backups/ledger-2026-11-23.db \\
            listener verify --config listener.toml
    """
    from listener.storage import backup as copy

    url = read_settings(config).database
    with interrupted_to_stop(), progress("copying") as advance:
        copy(url, destination, progress=advance)
    size = destination.stat().st_size
    if as_json:
        say_json({"path": str(destination), "bytes": size})
    else:
        say(f"{shown(str(destination))}: {size} bytes")
