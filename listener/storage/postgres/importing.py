"""Move a ledger from a file to PostgreSQL or back, under the same epoch.

If the next service on the source would begin a new epoch, the first one on the target does.
"""

from contextlib import closing

from listener.clock import now_ms
from listener.errors import LedgerError
from listener.ledger.results import Head
from listener.storage.checks import Progress
from listener.storage.postgres import reading
from listener.storage.postgres.backup import take
from listener.storage.postgres.beside import beside, refuse_served
from listener.storage.postgres.copying import from_file
from listener.storage.postgres.location import is_postgres
from listener.storage.postgres.schema import read_reason
from listener.storage.sqlite.epoch import reason
from listener.storage.sqlite.faults import FAULTS, told_by
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.lock import ServiceLock
from listener.storage.sqlite.opening import connect_read_only


def import_ledger(source: str, target: str, *, progress: Progress) -> Head:
    """Copy a ledger to a place where there is none yet; seqs, offsets, hashes and epoch stay.

    Nobody may serve either of them meanwhile: two ledgers that go on under one epoch would both be
    believed.

    Raises:
        LedgerError: One is being served, the target is not empty, or both are of one kind.
    """
    if is_postgres(source) == is_postgres(target):
        raise LedgerError(
            "one of the two must be a file, and the other on PostgreSQL; between two of a kind,"
            " use `listener backup`, or pg_dump and pg_restore"
        )
    if is_postgres(source):
        return _to_file(source, target, progress)
    return _from_file(source, target, progress)


def _to_file(source: str, target: str, progress: Progress) -> Head:
    with beside(source) as connected:
        refuse_served(connected)
        head = connected.run(reading.head)
        is_copy = connected.run(read_reason) is not None
    take(source, sqlite_path(target), is_copy=is_copy, progress=progress)
    return head


def _from_file(source: str, target: str, progress: Progress) -> Head:
    path = sqlite_path(source)
    if not path.exists():
        raise LedgerError(f"there is no ledger at {path}")
    lock = ServiceLock(path)
    try:
        with (
            closing(connect_read_only(path)) as file,
            beside(target, make_at_ms=now_ms()) as connected,
        ):
            refuse_served(connected)
            is_copy = reason(file, path, note=lock.note) is not None
            connected.run(lambda db: from_file(file, db, progress, is_copy=is_copy))
            return connected.run(reading.head)
    except FAULTS as error:
        raise LedgerError(f"{path} cannot be read: {told_by(error)}") from error
    finally:
        lock.release()
