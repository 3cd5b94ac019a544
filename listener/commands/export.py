"""Write the ledger's entries for another program: one on each line, in the form of the API."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from listener.commands.terminal import config_option, escaped, note, progress, read_settings

if TYPE_CHECKING:
    from listener.ledger.results import ReadEntry
    from listener.settings import Settings
    from listener.web.shapes.models import Entry

_COLUMNS: Final = (
    *("seq", "kind", "merchantNo", "storeNo", "transactionNo", "reference", "providerStatus"),
    *("amount", "currency", "held", "heldReason", "asOf", "recordedAt"),
    *("deliveries.count", "deliveries.first", "deliveries.last", "fields", "hash", "refunded"),
)
# Python reads more, but takes the zone of "2026-11-23+08:00" for a time of that day.
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What a spreadsheet may read as the beginning of a formula, sometimes after blanks. Source: OWASP,
# "CSV Injection".
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_FORMULA_BLANKS: Final = ("\t", "\r", "\n")
# In English, German, French, Spanish, Italian, Portuguese and Dutch.
_MONTH: Final = (
    r"(jan|ene|gen|f[eéÉ][bv]|m[aäÄ]r|mrt|a[pvb]r|ma[iyg]|mei|jui?n|giu|jui?l|lug|aug|ao[uûÛ]|ago"
    r"|sep|set|o[ck]t|ott|out|nov|d[eéÉ][cz]|dic)[a-zéÉ]*\.?"
)
# Most of what a spreadsheet would not show as it is: digits that it rounds (it keeps 15 of them),
# cuts or writes as a power of ten, what it takes for another number, and for a date, a time, a
# truth. Some of it only in some countries.
_NOT_AS_TEXT: Final = re.compile(
    r"\d{12,}|0\d+|\d+([.,]\d+)?e[+-]?\d+|\d+ \d+/\d+"
    r"|(?!\d+$)(?=.*\d)[(€$£¥ ]*+(\d{1,3}(,\d{3})+|\d*)([.,]\d*)?[ %€$£¥)]*-?"
    r"|\d{1,3}([. ]\d{3})+(,\d*)?|\d{1,4}\.\d{1,2}\.\d{1,4}"
    r"|\d{1,4}[-/]\d{1,2}([-/]\d{1,4}( \d{1,2}:\d{2}(:\d{2})?)?)?"
    rf"|\d{{1,4}}(\. ?|[- /])?{_MONTH}([- /]?\d{{1,4}})?|{_MONTH}[- /]?\d{{1,4}}(, ?\d{{4}})?"
    r"|\d{1,4}:\d{1,2}(:\d{1,2})?( ?[ap]m)?|\d{1,2} ?[ap]m|true|false",
    re.IGNORECASE | re.ASCII,
)
# An amount that is to be a number in a spreadsheet, too.
_AMOUNT: Final = re.compile(r"(0|[1-9]\d{0,11})(\.\d{1,2})?", re.ASCII)
# Without it a spreadsheet reads UTF-8 in the encoding of its own country.
_BYTE_ORDER_MARK: Final = "\ufeff".encode()


def _read_time(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Read a date, or a time with its zone, as Unix ms; a date is UTC's if it names none.

    As for the API, a time without a zone is refused: nobody can say whose it is.
    """
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError("neither a date nor a time")
        date, time, zone = found.groups()
        if time and not zone:
            raise ValueError("a time without a zone")
        at = datetime.fromisoformat(f"{date}T{time or '00:00'}{zone or 'Z'}".upper())
    except ValueError as error:
        raise click.BadParameter(
            "write it 2026-11-23 or 2026-11-23T10:11:12Z;"
            " a time needs Z for UTC, or a zone as +08:00"
        ) from error
    return (at - _EPOCH) // timedelta(milliseconds=1)


@click.command()
@config_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["ndjson", "csv"]),
    default="ndjson",
    show_default=True,
    help="JSON as in /v1/entries, or a table for a spreadsheet.",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=_read_time,
    help="Only entries recorded at this time or later.",
)
@click.option(
    "--until", metavar="TIME", callback=_read_time, help="Only entries recorded before this time."
)
@click.option("--merchant", metavar="M", help="Only entries of this merchantNo.")
@click.option("--store", metavar="S", help="Only entries of this storeNo.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="SEQ",
    help="Only entries after this one, to continue an earlier export.",
)
def export(
    *,
    config: Path | None,
    form: str,
    since: int | None,
    until: int | None,
    merchant: str | None,
    store: str | None,
    after: int,
) -> None:
    """Write the ledger's entries to stdout, one a line, oldest first.

    It works while the service runs. A date is the beginning of that day, in UTC unless it names
    a zone; a time needs one: Z for UTC, or +08:00. In CSV, text that a spreadsheet would read as
    a formula begins with ', and most that it would round, or take for a number or a date, is
    written ="…". Characters that steer a terminal become \\u….

    \b
    Examples:
        listener export --config listener.toml > entries.ndjson
        listener export --config listener.toml --format csv --since 2026-11-01 \\
            --until 2026-12-01 --merchant 200043 > november.csv
        listener export --config listener.toml | jq -r 'select(.held).transactionNo'
    """
    from listener.ledger.scope import Scope
    from listener.storage import open_reader

    if since is not None and until is not None and since >= until:
        raise click.UsageError("--until must be later than --since: nothing lies between them")
    settings = read_settings(config)
    if merchant is not None and merchant not in settings.merchants:
        note(f"{merchant} is no merchant of these settings")
    if store is not None and not _has_store(settings, merchant, store):
        note(f"{store} is no store of these settings")
    scope = Scope(merchant_no=merchant, store_no=store)
    write: Callable[[ReadEntry], bytes] = _csv if form == "csv" else _ndjson
    out = sys.stdout.buffer
    count = 0
    with open_reader(settings.database) as reader, progress("exporting") as advance:
        end = reader.head().seq
        if form == "csv":
            out.write(_BYTE_ORDER_MARK + csv_row(_COLUMNS))
        pages = reader.pages(after=after, until=end, since_ms=since, until_ms=until, scope=scope)
        for upto, lines in pages:
            out.writelines(map(write, lines))
            count += len(lines)
            advance(upto, end)
    out.flush()
    note(f"{count} {'entry' if count == 1 else 'entries'}")


def _has_store(settings: "Settings", merchant_no: str | None, store_no: str) -> bool:
    found = [one for name, one in settings.merchants.items() if merchant_no in (None, name)]
    return store_no == "-" or any(store_no in one.stores for one in found)


def _ndjson(line: "ReadEntry") -> bytes:
    return escaped(_shape(line).encode().decode()).encode() + b"\n"


def _csv(line: "ReadEntry") -> bytes:
    told = _shape(line).model_dump(mode="json", by_alias=True)
    deliveries = told.pop("deliveries")
    told |= {f"deliveries.{name}": value for name, value in deliveries.items()}
    for name in ("amount", "refunded"):
        if _AMOUNT.fullmatch(told[name] or ""):
            told[name] = Decimal(told[name])
    told["fields"] = json.dumps(told["fields"], ensure_ascii=False, separators=(",", ":"))
    return csv_row([told[name] for name in _COLUMNS])


def _shape(line: "ReadEntry") -> "Entry":
    """Build the API's form of an entry.

    Raises:
        DamagedError: The entry is not what was recorded.
    """
    from listener.storage.checks import UNREADABLE, unreadable
    from listener.web.shapes.models import Entry

    try:
        return Entry.of(line)
    except UNREADABLE as error:
        raise unreadable(line.entry.seq) from error


def csv_row(cells: Sequence[object]) -> bytes:
    """Write a row as in RFC 4180, so that a spreadsheet shows it unchanged; null is empty."""
    text = io.StringIO()
    csv.writer(text).writerow([_cell(value) for value in cells])
    return text.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    if _NOT_AS_TEXT.fullmatch(value):
        return f'="{value}"'
    shown = escaped(value, but="\t\r\n")
    # strip() knows more blanks than a spreadsheet skips.
    if shown.startswith(_FORMULA_BLANKS) or shown.strip().startswith(_FORMULA_STARTS):
        return f"'{shown}"
    return shown
