"""Every route of the HTTP API, in the order in which a newcomer needs them.

The router, OpenAPI and the page at /docs are all made from this one list.
"""

from typing import Final

from pydantic import Field

from listener.keys import Role
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web import notify
from listener.web.api import health, queries, terminals
from listener.web.api.queries import EPOCH_HEADER, HEAD_HEADER
from listener.web.reference import examples
from listener.web.reference.catalogue_follow import FOLLOW
from listener.web.reference.catalogue_pages import DESCRIBE
from listener.web.reference.catalogue_sales import SALES
from listener.web.reference.operations import (
    BAD_QUERY,
    EVERY_ROLE,
    AnswerSpec,
    BodySpec,
    Operation,
    Tag,
)
from listener.web.reference.schemas import JsonObject
from listener.web.shapes.models import (
    JSON,
    NDJSON,
    EntriesPage,
    LedgerHead,
    Problem,
    TransactionDetail,
    TransactionsPage,
)
from listener.web.shapes.parameters import (
    EntriesQuery,
    TerminalsQuery,
    TransactionDetailQuery,
    TransactionsQuery,
)
from listener.web.shapes.terminals import Terminals

TEXT: Final = "text/plain"
METRICS: Final = "application/openmetrics-text"
FORM: Final = "application/x-www-form-urlencoded"

_READERS: Final = (Role.LEDGER, Role.ADMIN)
_STATES: Final[JsonObject] = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}
_STRING: Final[JsonObject] = {"type": "string"}


class Ambiguous(Problem):
    """A number that several merchants share."""

    merchant_nos: list[str] = Field(description="Say which with `merchantNo`.")


_LEDGER: Final = (
    Operation(
        id="listTransactions",
        handler=queries.list_transactions,
        method="GET",
        path="/v1/transactions",
        tag=Tag.LEDGER,
        summary="List transactions, newest first",
        says="A pos key sees those of its store, and any other key those of its scope."
        " Everything else is answered as if it did not exist.",
        roles=EVERY_ROLE,
        query=TransactionsQuery,
        answers={
            200: AnswerSpec(
                says="A page.", model=TransactionsPage, example=examples.TRANSACTIONS_PAGE
            )
        },
        problems={400: f"{BAD_QUERY} Or the search took longer than a second: `search-too-long`."},
        curl='curl -H "Authorization: Bearer $KEY" \\\n'
        '  "$LISTENER/v1/transactions?storeNo=303660&status=cancelled&limit=20"',
    ),
    Operation(
        id="showTransaction",
        handler=queries.show_transaction,
        method="GET",
        path="/v1/transactions/{transactionNo}",
        tag=Tag.LEDGER,
        summary="Show one transaction and its entries",
        says="The whole story: who said what, when, on what evidence, how often it was delivered."
        " Where there are more entries than `limit`, ask again `after` the answer's `nextAfter`.",
        roles=EVERY_ROLE,
        query=TransactionDetailQuery,
        answers={
            200: AnswerSpec(
                says="The transaction.",
                model=TransactionDetail,
                example=examples.TRANSACTION_DETAIL,
            )
        },
        problems={
            400: BAD_QUERY,
            404: "No such transaction in the key's scope.",
            409: "Several merchants share the number: add `merchantNo`.",
        },
        problem_models={409: Ambiguous},
        curl='curl -H "Authorization: Bearer $KEY" \\\n'
        '  "$LISTENER/v1/transactions/297553638301777927"',
    ),
    Operation(
        id="listEntries",
        handler=queries.list_entries,
        method="GET",
        path="/v1/entries",
        tag=Tag.LEDGER,
        summary="Read the ledger's entries",
        says="Entries in seq order, as one document, or one a line for"
        f" `Accept: {NDJSON}`. To follow the ledger, ask again with `after` = the last"
        " seq, and `wait`.",
        roles=_READERS,
        query=EntriesQuery,
        headers={"Accept": f"`{JSON}` or `{NDJSON}`."},
        answers={
            200: AnswerSpec(
                says="Entries.",
                model=EntriesPage,
                example=examples.ENTRIES_PAGE,
                media_types=(JSON, NDJSON),
                headers={
                    EPOCH_HEADER: f"The ledger's epoch, with `{NDJSON}`.",
                    HEAD_HEADER: f"The newest entry's seq, with `{NDJSON}`.",
                },
            )
        },
        problems={400: BAD_QUERY},
        curl='curl -H "Authorization: Bearer $KEY" \\\n  "$LISTENER/v1/entries?after=0&limit=100"',
    ),
    Operation(
        id="showLedger",
        handler=queries.show_head,
        method="GET",
        path="/v1/ledger",
        tag=Tag.LEDGER,
        summary="Show the end of the ledger",
        says="The hash covers every entry up to the seq. Store both elsewhere, and any later"
        " change to what came before will show.",
        roles=_READERS,
        answers={200: AnswerSpec(says="The head.", model=LedgerHead, example=examples.LEDGER_HEAD)},
        problems={400: BAD_QUERY},
        curl='curl -H "Authorization: Bearer $KEY" "$LISTENER/v1/ledger"',
    ),
    Operation(
        id="listTerminals",
        handler=terminals.list_terminals,
        method="GET",
        path="/v1/terminals",
        tag=Tag.LEDGER,
        summary="List the tills",
        says="Who is online, when it was last heard, how far it has come, and the cancellations"
        " that no till of their stream has acknowledged; and the listeners that serve the ledger.",
        roles=_READERS,
        query=TerminalsQuery,
        answers={
            200: AnswerSpec(says="The terminals.", model=Terminals, example=examples.TERMINALS)
        },
        problems={400: BAD_QUERY},
        curl='curl -H "Authorization: Bearer $KEY" "$LISTENER/v1/terminals"',
    ),
)


def _notify(path: str, operation_id: str, says: str) -> Operation:
    return Operation(
        id=operation_id,
        handler=notify.notify,
        method="POST",
        path=path,
        tag=Tag.NOTIFY,
        summary="Receive a notification from Pockyt",
        says=f"The notify URL to register with Pockyt. {says} The key is the signature: what"
        " verifies is never refused, and a repeat gets the same answer as the first.",
        body=BodySpec(
            media_types=(FORM, JSON, TEXT),
            schema={
                "type": "object",
                "properties": {
                    "verifySign": {"type": "string", "description": "MD5 in hex, over the rest."}
                },
                "additionalProperties": True,
            },
            is_required=False,
        ),
        answers={
            200: AnswerSpec(
                says="`success`, only once the entry is committed and synced to disk.",
                media_types=(TEXT,),
                schema={"type": "string", "const": "success"},
                example="success",
            )
        },
        problems={
            400: "The body is not what its type says, names a field twice, or has too many. Or this"
            " is not HTTP (`malformed`), such as a method that HTTP does not register.",
            401: "The signature is missing or wrong.",
            404: "The merchant is not configured.",
            405: "Not a POST.",
            408: "The body did not arrive in time.",
            413: f"The body is over {BODY_BYTES_MAX // 1024} KiB.",
            415: "Neither a form, JSON, text/plain nor without a type.",
        },
        curl="listener trigger --url $LISTENER/notify/200043/303660 --token $TOKEN \\\n"
        "  --status closed transactionNo=297553638301777927 reference=test20200101307",
    )


_NOTIFY: Final = (
    _notify("/notify/{merchantNo}/{storeNo}", "notifyStore", "With the store that it is for."),
    _notify("/notify/{merchantNo}", "notifyMerchant", "For a merchant with one store, or none."),
)

_OPERATE: Final = (
    Operation(
        id="isAlive",
        handler=health.healthz,
        method="GET",
        path="/healthz",
        tag=Tag.OPERATE,
        summary="Check that the process is alive",
        says="It says nothing about the ledger.",
        answers={200: AnswerSpec(says="Alive.", schema=_STATES, example={"status": "alive"})},
        uses_ledger=False,
        curl='curl "$LISTENER/healthz"',
    ),
    Operation(
        id="isReady",
        handler=health.readyz,
        method="GET",
        path="/readyz",
        tag=Tag.OPERATE,
        summary="Check whether notifications can be taken",
        says="The ledger commits, and no restart is under way.",
        answers={200: AnswerSpec(says="Ready.", schema=_STATES, example={"status": "ready"})},
        problems={503: "A restart is under way."},
        curl='curl "$LISTENER/readyz"',
    ),
    Operation(
        id="readMetrics",
        handler=health.metrics,
        method="GET",
        path="/metrics",
        tag=Tag.OPERATE,
        summary="Read the metrics",
        says="For Prometheus: OpenMetrics, or its older format to whoever accepts only that.",
        roles=(Role.ADMIN,),
        answers={200: AnswerSpec(says="The metrics.", media_types=(METRICS, TEXT), schema=_STRING)},
        curl='curl -H "Authorization: Bearer $KEY" "$LISTENER/metrics"',
    ),
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    *SALES,
    *FOLLOW,
    *_LEDGER,
    *_NOTIFY,
    *_OPERATE,
    *DESCRIBE,
)
