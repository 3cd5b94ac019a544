"""`export`: every entry once, in the shape of the API, for programs and for spreadsheets."""

import asyncio
import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest

from listener.commands.export import csv_row
from listener.ledger.model import Fact, Kind, Status, fields_text, rfc3339
from listener.ledger.results import ReadEntry
from listener.ledger.scope import Scope
from listener.storage.sqlite.ledger import SqliteLedger
from listener.web.shapes.models import Entry
from tests.support.commands import (
    DEADLINE_SECONDS,
    before_a_person,
    here,
    run,
    started,
    write_settings,
)
from tests.support.stored import behind

DAY_MS = 86_400_000
# 2026-11-23, and a day for each entry.
BEGAN_MS = 1_795_392_000_000


class Days:
    """A clock that stands still on a day."""

    def __init__(self) -> None:
        self.now = BEGAN_MS

    def __call__(self) -> int:
        return self.now


def notification(number: int, *, merchant_no: str = "200043", note: str = "") -> Fact:
    reference = f"=1+{number}" if note else f"r{number}"
    fields = {"transactionNo": f"{number}", "status": "closed", "note": note}
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=merchant_no,
        store_no="303660",
        transaction_no=f"{number}",
        reference=reference,
        provider_status="closed",
        says=Status.CANCELLED,
        amount="13.00",
        currency="USD",
        fingerprint=f"f{number}",
        fields=fields_text(fields),
    )


async def fill_quickly(config: Path, count: int) -> None:
    """Record many notifications in few commits."""
    async with await SqliteLedger.open(config.with_name("ledger.db"), confirm="off") as ledger:
        await asyncio.gather(*(ledger.record(notification(n)) for n in range(1, count + 1)))


async def fill(config: Path, facts: list[Fact]) -> list[ReadEntry]:
    """Record facts, a day apart, the first one twice; return how they read back."""
    clock = Days()
    path = config.with_name("ledger.db")
    async with await SqliteLedger.open(path, confirm="off", clock=clock) as ledger:
        for fact in facts:
            await ledger.record(fact)
            clock.now += DAY_MS
        await ledger.record(facts[0])
        return await ledger.read_entries(after=0, limit=10_000, scope=Scope())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_settings(tmp_path)


async def test_ndjson_is_what_the_api_says_of_each_entry(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = await fill(config, [notification(n, note="ä & =") for n in range(1, 4)])
    done = here(capsys, "export", "--config", config, "--format", "ndjson")
    assert (done.status, done.err) == (0, "3 entries\n")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert told == [json.loads(Entry.of(line).encode()) for line in lines]
    assert told[0]["deliveries"]["count"] == 2
    assert told[0]["recordedAt"] == rfc3339(BEGAN_MS) == "2026-11-23T00:00:00.000Z"
    assert told[0]["fields"]["note"] == "ä & ="


async def test_an_export_longer_than_a_page_holds_every_entry_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill_quickly(config, 1_101)
    done = here(capsys, "export", "--config", config)
    assert [json.loads(line)["seq"] for line in done.out.splitlines()] == [*range(1, 1_102)]
    after = here(capsys, "export", "--config", config, "--after", "1100")
    assert [json.loads(line)["seq"] for line in after.out.splitlines()] == [1_101]
    assert after.err == "1 entry\n"


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        (["--since", "2026-11-24"], [2, 3, 4]),
        (["--until", "2026-11-24T00:00:00Z"], [1]),
        (["--since", "2026-11-24T00:00:00Z", "--until", "2026-11-25T00:00:00.001+00:00"], [2, 3]),
        (["--since", "2026-11-24T01:00:00+02:00", "--until", "2026-11-25"], [2]),
        (["--since", "2026-11-24-08:00", "--until", "2026-11-25-08:00"], [3]),
        (["--since", "2026-11-24 00:00Z", "--until", "2026-11-25t00:00z"], [2]),
        (["--merchant", "7"], [4]),
        (["--store", "303660", "--merchant", "200043", "--after", "1"], [2, 3]),
        (["--store", "300014"], []),
    ],
)
async def test_filters_choose_entries(config: Path, options: list[str], seqs: list[int]) -> None:
    await fill(config, [*(notification(n) for n in range(1, 4)), notification(4, merchant_no="7")])
    done = run("export", "--config", config, *options, env={"TZ": "America/New_York"})
    assert [json.loads(line)["seq"] for line in done.out.splitlines()] == seqs


async def test_csv_tells_the_same_and_starts_no_formula(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(config, [notification(1, note="x"), notification(2)])
    table = here(capsys, "export", "--config", config, "--format", "csv").out
    same = here(capsys, "export", "--config", config).out
    lines = [json.loads(line) for line in same.splitlines()]
    # The mark tells a spreadsheet that it is UTF-8.
    assert table.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(table.removeprefix("\ufeff"))))
    assert [row["reference"] for row in rows] == ["'=1+1", "r2"]
    for row, line in zip(rows, lines, strict=True):
        assert json.loads(row["fields"]) == line["fields"]
        assert row["deliveries.count"] == str(line["deliveries"]["count"])
        assert row["deliveries.last"] == line["deliveries"]["last"]
        for name in ("seq", "kind", "merchantNo", "storeNo", "transactionNo", "amount", "hash"):
            assert row[name] == str(line[name])
        assert (row["held"], row["heldReason"], row["asOf"]) == ("false", "", "")
    flat = {name.partition(".")[0] for name in rows[0]}
    assert flat == set(lines[0])


@pytest.mark.parametrize(
    "start",
    [
        *("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"),
        *(" =", "\u00a0=", "\u3000@", "\u2003+", "\t-", "\n ="),
    ],
)
def test_whatever_may_start_a_formula_begins_with_a_quote(start: str) -> None:
    written = csv_row([f"{start}HYPERLINK()"]).decode()
    (row,) = csv.reader(io.StringIO(written, newline=""))
    assert row == [f"'{start}HYPERLINK()"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("297553638301777927", '="297553638301777927"'),
        ("123456789012", '="123456789012"'),
        ("12345678901", "12345678901"),
        ("007", '="007"'),
        ("12E5", '="12E5"'),
        ("1.2e-5", '="1.2e-5"'),
        ("3-4", '="3-4"'),
        ("1/2/2026", '="1/2/2026"'),
        ("24.12.26", '="24.12.26"'),
        ("12:30", '="12:30"'),
        ("9:05 pm", '="9:05 pm"'),
        ("SEP-7", '="SEP-7"'),
        ("1 March 2026", '="1 March 2026"'),
        ("1,000", '="1,000"'),
        ("5%", '="5%"'),
        ("TRUE", '="TRUE"'),
        ("order 3-4", "order 3-4"),
        ("A-1-2026", "A-1-2026"),
        ("1,00", '="1,00"'),
        ("13.00", '="13.00"'),
        (Decimal("13.00"), "13.00"),
        *(
            (text, f'="{text}"')
            for text in ("(5)", "(1,234)", "5-", "$5", "$1,234.00", "5 €", "¥5")
        ),
        *((text, f'="{text}"') for text in (".5", "1.", "5 %", "1 1/2", "0.0")),
        *((text, f'="{text}"') for text in ("1.234.567", "1 000", "1.000,50", "5 pm")),
        *((text, f'="{text}"') for text in ("2026-11-23 10:00", "Nov 5, 2026")),
        # In other countries' spreadsheets.
        *((text, f'="{text}"') for text in ("DEZ-5", "MAI-12", "1. März 2026", "3.Okt", "OKT 26")),
        *((text, f'="{text}"') for text in ("3 févr. 2026", "AOÛT-5", "déc-7", "5 juin", "ENE-1")),
        *((text, f'="{text}"') for text in ("1,5E3", "mrt-4", "set-9", "FÉVR-2")),
        (" " * 60_000 + "1x", " " * 60_000 + "1x"),
        *((text, text) for text in ("(a)", "()", "$", "5 USD", "1,23,4", "1.2.3.4", "5--")),
        ("0", "0"),
        ("-5", "'-5"),
        ("\x0b=1+1", "\\u000b=1+1"),
        ("\ufeff=1+1", "\\ufeff=1+1"),
        (
            "a\x1b]0;x\x07\x9b31m\u202eb\u2066\u2028",
            "a\\u001b]0;x\\u0007\\u009b31m\\u202eb\\u2066\\u2028",
        ),
        ("\U000e0041", "\\udb40\\udc41"),
        ("测试 ä\u3000€", "测试 ä\u3000€"),
        (None, ""),
        (True, "true"),
        (7, "7"),
    ],
)
def test_a_cell_is_what_a_spreadsheet_shows_as_it_is(text: object, written: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_row([text, "x"]).decode(), newline=""))
    assert row == [written, "x"]


async def test_control_characters_are_escaped_and_keep_their_value(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "a\x1b]0;x\x07\x9b31m\x7f\u202eb\u200f\u2028\ufeff\U000e0041"
    (line,) = await fill(config, [notification(1, note=hostile)])
    for form in ("ndjson", "csv"):
        done = here(capsys, "export", "--config", config, "--format", form)
        told = done.out.removeprefix("\ufeff")
        assert all(char.isprintable() or char in "\r\n" for char in told)
        assert "\\u202e" in told
    told = here(capsys, "export", "--config", config).out
    assert json.loads(told)["fields"]["note"] == hostile
    assert json.loads(told) == json.loads(Entry.of(line).encode())


async def test_a_reader_that_leaves_early_is_no_error(config: Path) -> None:
    await fill_quickly(config, 1_500)
    with started("export", "--config", config, reads=False) as program:
        assert program.process.stdout is not None
        assert json.loads(program.process.stdout.readline())["seq"] == 1
        program.process.stdout.close()
        assert program.process.wait(DEADLINE_SECONDS) == 1
        assert program.left(program.err) == []


async def test_a_person_sees_how_far_it_is(config: Path) -> None:
    await fill(config, [notification(n) for n in range(1, 4)])
    assert "exporting" in before_a_person("export", "--config", config)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--since", "yesterday"], "write it 2026-11-23 or 2026-11-23T10:11:12Z"),
        (["--since", "2026-11-23T10:11:12"], "a time needs Z for UTC, or a zone as +08:00"),
        (["--until", "2026-11-23 10:11"], "a time needs Z for UTC, or a zone as +08:00"),
        (["--since", "2026-11-23x06:00"], "write it 2026-11-23 or 2026-11-23T10:11:12Z"),
        (["--since", "2026-11-23+0800"], "write it 2026-11-23 or 2026-11-23T10:11:12Z"),
        (["--since", "2026-11-24", "--until", "2026-11-24"], "nothing lies between them"),
        (["--until", "2026-13-01"], "write it 2026-11-23 or 2026-11-23T10:11:12Z"),
        (["--after", "-1"], "-1 is not in the range"),
    ],
)
def test_a_wrong_filter_is_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    done = here(capsys, "export", *options)
    assert done.status == 2
    assert complaint in done.complaint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--merchant", "nope"], "nope is no merchant of these settings"),
        (["--store", "nope"], "nope is no store of these settings"),
        (["--merchant", "200043", "--store", "nope"], "nope is no store of these settings"),
        (["--store", "303660"], ""),
        (["--merchant", "200043", "--store", "-"], ""),
    ],
)
async def test_what_is_not_in_the_settings_may_be_a_mistake(
    capsys: pytest.CaptureFixture[str], config: Path, options: list[str], said: str
) -> None:
    await fill(config, [notification(1)])
    done = here(capsys, "export", "--config", config, *options)
    assert done.status == 0
    notes = done.err.splitlines()
    assert [line for line in notes if "settings" in line] == ([said] if said else [])


def test_where_no_ledger_is_nothing_is_made(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    done = here(capsys, "export", "--config", config)
    assert done.status == 1
    assert "there is no ledger at" in done.complaint
    assert [*config.parent.iterdir()] == [config]


async def test_a_damaged_ledger_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill_quickly(config, 400)
    path = config.with_name("ledger.db")
    whole = path.read_bytes()
    # The last tables' pages, past those that are read when it is opened.
    path.write_bytes(whole[: len(whole) // 2] + b"\xff" * (len(whole) - len(whole) // 2))
    done = here(capsys, "export", "--config", config)
    assert done.status == 1
    assert done.err.splitlines() == [
        "listener: the ledger cannot be read now: database disk image is malformed"
    ]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize(
    "change",
    [
        "fields = replace(fields, '{', '[')",
        "fields = '[]'",
        "fields = CAST(x'7bff7d' AS TEXT)",
        "kind = 'notificatioN'",
        "recorded_at = 99999999999999999",
    ],
)
async def test_a_damaged_entry_is_named_on_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], form: str, change: str
) -> None:
    await fill(config, [notification(n) for n in range(1, 4)])
    with behind(config.with_name("ledger.db")) as db:
        db.execute(f"UPDATE entries SET {change} WHERE seq = 2")
    done = here(capsys, "export", "--config", config, "--format", form)
    assert done.status == 1
    assert done.complaint.startswith("entry 2 cannot be read")
    assert "run `listener verify`" in done.complaint
