"""Make, list and revoke keys in the ledger, whether the service runs or not."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from listener.clock import now_ms
from listener.commands.terminal import (
    config_option,
    is_watched,
    json_option,
    note,
    read_settings,
    say,
    say_json,
    say_table,
    shown,
)

if TYPE_CHECKING:
    from listener.keys import Key, Role
    from listener.settings import Settings

_COLUMNS: Final = (
    "id",
    "role",
    "merchant",
    "store",
    "terminal",
    "may refund",
    "created",
    "revoked",
)


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of tills and programs.

    \b
    Roles:
        pos      a till: follows its streams, starts and cancels sales of its store
        ledger   a program that reads the ledger: back office, reports
        admin    everything, metrics and operator's decisions included

    A key is shown once and stored hashed. All of this works while the service runs.
    """


@keys.command()
@config_option
@click.option("--role", type=click.Choice(["pos", "ledger", "admin"]), required=True)
@click.option(
    "--merchant",
    metavar="M",
    help="Its merchantNo; by default the only one for a till, and every one for others.",
)
@click.option("--store", metavar="S", help="Its storeNo; by default every store of the merchant.")
@click.option("--terminal", metavar="T", help="The till's name; its position is stored under it.")
@click.option(
    "--may-refund", is_flag=True, help="Allow it to cancel a paid sale, which refunds it."
)
@json_option
def create(
    *,
    config: Path | None,
    role: str,
    merchant: str | None,
    store: str | None,
    terminal: str | None,
    may_refund: bool,
    as_json: bool,
) -> None:
    """Make a key, and show it once. If there is no ledger yet, it is created.

    \b
    Examples:
        listener keys create --config listener.toml --role admin
        listener keys create --config listener.toml --role pos \\
            --merchant 200043 --store 303660 --terminal T-42
        KEY=$(listener keys create --config listener.toml --role ledger --json | jq -r .key)
    """
    from listener.keys import Role
    from listener.storage import open_keys

    settings = read_settings(config)
    if (
        merchant is None
        and (role == Role.POS or store is not None)
        and len(settings.merchants) == 1
    ):
        (merchant,) = settings.merchants
    _check_scope(settings, merchant, store)
    try:
        key, text = make_key(
            settings,
            role=Role(role),
            merchant_no=merchant,
            store_no=store,
            terminal=terminal,
            may_refund=may_refund,
        )
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    try:
        if as_json:
            say_json({"id": key.id, "key": text} | _told(key))
        else:
            say(text)
    except OSError:
        # A key that nobody has read must not stay valid.
        with open_keys(settings.database, create=False) as stored:
            stored.revoke(key.id, at_ms=now_ms())
        raise
    if not as_json:
        note(f"This is key {key.id}, shown only now: store it where the till or program reads it.")


@keys.command(name="list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List all keys, the oldest first, revoked ones too; never their text.

    \b
    Examples:
        listener keys list --config listener.toml
        listener keys list --config listener.toml --json | jq -r '.[] | select(.role == "pos").id'
    """
    from listener.storage import open_keys

    with open_keys(read_settings(config).database, create=False) as stored:
        found = stored.list_all()
    if as_json:
        say_json([{"id": key.id} | _told(key) | _times(key) for key in found])
        return
    if is_watched() and not found:
        note("There are no keys yet: see listener keys create --help.")
        return
    say_table(_COLUMNS, [_row(key) for key in found])


@keys.command()
@config_option
@json_option
@click.argument("key_id", metavar="ID")
def revoke(config: Path | None, as_json: bool, key_id: str) -> None:
    """Revoke the key of an ID (see `keys list`); it acts within a second, on open streams too.

    \b
    Example:
        listener keys revoke --config listener.toml 1f0c55aa90b3
    """
    from listener.storage import open_keys

    with open_keys(read_settings(config).database, create=False) as stored:
        was_revoked = stored.revoke(key_id, at_ms=now_ms())
        key = stored.find(key_id)
    if key is None:
        # Not repeated: it may be a key's whole text.
        raise click.ClickException("there is no key with this id; `listener keys list` shows them")
    if not was_revoked:
        raise click.ClickException(
            f"key {key.id} was revoked before, at {_times(key)['revokedAt']}"
        )
    if as_json:
        say_json({"id": key.id} | _told(key) | _times(key))
    else:
        say(f"revoked {key.id}")


def make_key(
    settings: "Settings",
    *,
    role: "Role",
    merchant_no: str | None = None,
    store_no: str | None = None,
    terminal: str | None = None,
    may_refund: bool = False,
) -> "tuple[Key, str]":
    """Make a key and store it; return its text too.

    Raises:
        ValueError: The scope does not fit the role; the text says why.
        LedgerError, LedgerUnavailableError: The ledger cannot be used.
    """
    from listener.keys import mint
    from listener.storage import open_keys

    key, text = mint(
        role=role,
        now_ms=now_ms(),
        merchant_no=merchant_no,
        store_no=store_no,
        terminal=terminal,
        may_refund=may_refund,
    )
    with open_keys(settings.database, create=True) as stored:
        stored.add(key)
    return key, text


def _check_scope(settings: "Settings", merchant: str | None, store: str | None) -> None:
    """Refuse a key for something that is not configured: it could never see anything."""
    if merchant is None:
        return
    known = settings.merchants.get(merchant)
    if known is None:
        raise click.BadParameter(
            f"{shown(merchant)} is not configured; there is {', '.join(settings.merchants)}",
            param_hint="--merchant",
        )
    if store is not None and store not in known.stores:
        there = f"there is {', '.join(known.stores)}" if known.stores else "it has no stores"
        raise click.BadParameter(
            f"{shown(store)} is not a store of merchant {merchant}; {there}", param_hint="--store"
        )


def _told(key: "Key") -> dict[str, object]:
    return {
        "role": key.role.value,
        "merchantNo": key.merchant_no,
        "storeNo": key.store_no,
        "terminal": key.terminal,
        "mayRefund": key.may_refund,
    }


def _times(key: "Key") -> dict[str, object]:
    from listener.ledger.model import rfc3339
    from listener.storage.checks import unreadable_key

    revoked_at_ms = key.revoked_at_ms
    try:
        return {
            "createdAt": rfc3339(key.created_at_ms),
            "revokedAt": None if revoked_at_ms is None else rfc3339(revoked_at_ms),
        }
    except (ValueError, OverflowError, OSError) as error:
        # A time that no clock shows.
        raise unreadable_key(key.id) from error


def _row(key: "Key") -> list[str]:
    times = _times(key)
    return [
        key.id,
        key.role.value,
        key.merchant_no or "every",
        key.store_no or "every",
        key.terminal or "-",
        "yes" if key.may_refund else "no",
        str(times["createdAt"]),
        str(times["revokedAt"] or "-"),
    ]
