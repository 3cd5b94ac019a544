"""What every Python peer does alike: verify a notification, and how it is stored."""

import hashlib
import os
import sqlite3
from collections.abc import Mapping

SCHEMA = """
CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY, transaction_no TEXT NOT NULL, status TEXT NOT NULL,
    reference TEXT, amount TEXT, currency TEXT, merchant_no TEXT, store_no TEXT, received_at REAL,
    UNIQUE (transaction_no, status)
)
"""
INSERT = """
INSERT OR IGNORE INTO notifications
    (transaction_no, status, reference, amount, currency, merchant_no, store_no, received_at)
VALUES (?, ?, ?, ?, ?, ?, ?, julianday('now'))
"""
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")


def database() -> str:
    return os.environ["BENCH_DATABASE"]


def port() -> int:
    return int(os.environ["BENCH_PORT"])


def till_port() -> int:
    return int(os.environ["BENCH_TILL_PORT"])


def connect() -> sqlite3.Connection:
    """Open the database, each statement its own commit."""
    db = sqlite3.connect(database(), isolation_level=None, timeout=60)
    for statement in (*PRAGMAS, SCHEMA):
        db.execute(statement)
    return db


def verifies(form: Mapping[str, str], token_digest: str) -> bool:
    pairs = [f"{name}={form[name]}" for name in sorted(form) if name != "verifySign"]
    text = "&".join([*pairs, token_digest])
    return hashlib.md5(text.encode()).hexdigest() == form.get("verifySign")


def token_digest() -> str:
    return hashlib.md5(os.environ["BENCH_TOKEN"].encode()).hexdigest()


def row(form: Mapping[str, str], merchant_no: str, store_no: str) -> tuple[str, ...]:
    names = ("transactionNo", "status", "reference", "amount", "currency")
    return (*(form[name] for name in names), merchant_no, store_no)
