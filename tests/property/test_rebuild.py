"""Whatever has happened to a shop, its states are what its entries add up to, worked out again."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from listener.storage import rebuild
from listener.storage.rows import SALE_COLUMNS, TRANSACTION_COLUMNS
from tests.property.scenario import play

SCENARIOS = 25
# When Pockyt is asked next follows from a setting of the time.
_STATES = {
    "transactions": [name for name in TRANSACTION_COLUMNS if not name.startswith("ask_")],
    "sales": list(SALE_COLUMNS),
}


def states(path: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as db:
        return [
            db.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1").fetchall()
            for table, names in _STATES.items()
        ]


def test_what_is_stored_after_any_history_is_what_is_rebuilt(tmp_path: Path) -> None:
    for seed in range(1, SCENARIOS + 1):
        asyncio.run(play(seed, directory=tmp_path))
        (path,) = tmp_path.glob("*.db")
        before = states(path)
        rebuild(f"sqlite:///{path}", confirm="suspicious")
        assert states(path) == before, seed
        for file in tmp_path.iterdir():
            file.unlink()
