"""Examples of answers; a test validates each against its schema."""

from typing import Final

from listener.web.reference.schemas import JsonObject

EPOCH: Final = "9f3c5d2a7e10b846"
STREAM: Final = "200043/303660"
TRANSACTION_NO: Final = "297553638301777927"

_AT: Final = "2026-11-23T10:11:12.345Z"
_HASH: Final = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"

TRANSACTION: Final[JsonObject] = {
    "transactionNo": TRANSACTION_NO,
    "reference": "test20200101307",
    "merchantNo": "200043",
    "storeNo": "303660",
    "terminal": "T-42",
    "amount": "13.00",
    "currency": "USD",
    "settleCurrency": "USD",
    "status": "cancelled",
    "providerStatus": "closed",
    "stateVersion": 3,
    "held": False,
    "createdAt": "2026-11-23T10:10:02.118Z",
    "updatedAt": _AT,
    "cancel": {
        "state": "confirmed",
        "requestedAt": "2026-11-23T10:11:11.902Z",
        "resolvedAt": _AT,
        "evidence": "signature",
    },
}
STARTED_SALE: Final[JsonObject] = {
    **TRANSACTION,
    "status": "created",
    "providerStatus": "init",
    "stateVersion": 1,
    "updatedAt": "2026-11-23T10:10:02.118Z",
    "cancel": None,
    "qrcodeUrl": None,
    "deepLink": None,
}
ENTRY: Final[JsonObject] = {
    "seq": 2088,
    "kind": "notification",
    "merchantNo": "200043",
    "storeNo": "303660",
    "transactionNo": TRANSACTION_NO,
    "reference": "test20200101307",
    "providerStatus": "closed",
    "amount": "13.00",
    "currency": "USD",
    "held": False,
    "heldReason": None,
    "asOf": None,
    "recordedAt": _AT,
    "deliveries": {"count": 1, "first": _AT, "last": _AT},
    "fields": {
        "transactionNo": TRANSACTION_NO,
        "reference": "test20200101307",
        "status": "closed",
        "amount": "13.00",
        "currency": "USD",
        "settleCurrency": "USD",
        "time": "20261123181112",
    },
    "hash": _HASH,
    "refunded": None,
}
TRANSACTIONS_PAGE: Final[JsonObject] = {
    "data": [TRANSACTION],
    "nextCursor": "AAABmrvlVgYAAAAAAAAIJkY1t1hJ0dWc",
}
TRANSACTION_DETAIL: Final[JsonObject] = {**TRANSACTION, "entries": [ENTRY], "nextAfter": None}
ENTRIES_PAGE: Final[JsonObject] = {"epoch": EPOCH, "head": 2088, "data": [ENTRY]}
LEDGER_HEAD: Final[JsonObject] = {
    "epoch": EPOCH,
    "seq": 2088,
    "hash": _HASH,
    "counts": {
        "entries": 2088,
        "transactions": 511,
        "events": 1744,
        "deliveries": 2101,
        "repeats": 13,
    },
}
TERMINALS: Final[JsonObject] = {
    "data": [
        {
            "name": f"{STREAM}/T-42",
            "merchantNo": "200043",
            "storeNo": "303660",
            "terminal": "T-42",
            "stream": STREAM,
            "online": True,
            "lastSeenAt": _AT,
            "ackedOffset": 1042,
            "ackedAt": _AT,
            "head": 1044,
            "lag": 2,
            "unacknowledgedCancellations": 1,
        }
    ],
    "unacknowledged": [
        {
            "stream": STREAM,
            "offset": 1043,
            "transactionNo": TRANSACTION_NO,
            "reference": "test20200101307",
            "amount": "13.00",
            "currency": "USD",
            "recordedAt": _AT,
            "late": False,
        }
    ],
    "nodes": [
        {
            "id": "1f0c55aa",
            "version": "0.2.0",
            "startedAt": _AT,
            "lag": 0,
            "clockMs": 3,
            "here": True,
        }
    ],
    "nextCursor": None,
}
EVENT: Final[JsonObject] = {
    "specversion": "1.0",
    "id": f"{EPOCH}-2088",
    "source": "/listener",
    "type": "transaction.cancelled",
    "subject": TRANSACTION_NO,
    "time": _AT,
    "datacontenttype": "application/json",
    "data": {
        "transactionNo": TRANSACTION_NO,
        "reference": "test20200101307",
        "merchantNo": "200043",
        "storeNo": "303660",
        "terminal": "T-42",
        "status": "cancelled",
        "providerStatus": "closed",
        "stateVersion": 3,
        "amount": "13.00",
        "currency": "USD",
        "reason": "cancel_requested",
        "evidence": "signature",
    },
}
EVENTS_PAGE: Final[JsonObject] = {
    "stream": STREAM,
    "epoch": EPOCH,
    "head": 1044,
    "next": 1042,
    "events": [{"stream": STREAM, "offset": 1042, "event": EVENT}],
}
