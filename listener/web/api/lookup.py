"""Find the transaction or the sale that a path names, if the key may see it."""

from aiohttp import web

from listener.keys import Key
from listener.ledger.model import Transaction
from listener.ledger.results import RecordedSale
from listener.web.context import LEDGER, SETTINGS
from listener.web.problem import ProblemError
from listener.web.shapes.parameters import TransactionQuery, read_query


async def find_transaction(
    request: web.Request, key: Key, query: TransactionQuery | None = None
) -> Transaction:
    """Return the transaction with the path's number.

    Raises:
        ProblemError: There is none (404), or several merchants have the number (409).
    """
    query = query or read_query(request, TransactionQuery)
    of_number = await request.app[LEDGER].read_transaction(
        request.match_info["transactionNo"], merchant_no=query.merchant_no
    )
    found = [transaction for transaction in of_number if key.scope.covers(transaction.stream)]
    if not found:
        raise ProblemError(404, "no-transaction", "no transaction with this number is known here")
    if len(found) > 1:
        merchants = sorted(transaction.merchant_no for transaction in found)
        advice = f"several merchants share this number: add ?merchantNo= {' or '.join(merchants)}"
        raise ProblemError(409, "ambiguous-number", advice, members={"merchantNos": merchants})
    return found[0]


async def find_sale(request: web.Request, key: Key, reference: str) -> RecordedSale | None:
    """Return the sale with a reference in the key's scope; None where none was recorded.

    A refused sale is returned only if no other has the reference.

    Raises:
        ProblemError: Several stores have one with this reference (409).
    """
    sales = await _read_sales(request, key, reference)
    found = [sale for sale in sales if not sale.state.is_refused] or sales[:1]
    if len(found) > 1:
        raise ProblemError(
            409,
            "ambiguous-reference",
            "several stores have a sale with this reference: use a key of the store",
            members={"storeNos": sorted(sale.state.store_no for sale in found)},
        )
    return found[0] if found else None


async def find_sales(
    request: web.Request, key: Key, reference: str
) -> list[tuple[RecordedSale, Transaction | None]]:
    """Return the sales with a reference in the key's scope, the newest first.

    Each comes with its transaction, once its number is known.
    """
    found: list[tuple[RecordedSale, Transaction | None]] = []
    for sale in await _read_sales(request, key, reference):
        bound = sale.transaction_no and await request.app[LEDGER].read_transaction(
            sale.transaction_no, merchant_no=sale.fact.merchant_no
        )
        found.append((sale, bound[0] if bound else None))
    return found


async def _read_sales(request: web.Request, key: Key, reference: str) -> list[RecordedSale]:
    """Read the sales with a reference in the key's scope, the newest first.

    A key without a merchant sees the sales of all configured merchants.
    """
    merchants = [key.merchant_no] if key.merchant_no else request.app[SETTINGS].merchants
    found = [
        sale
        for merchant_no in merchants
        for sale in await request.app[LEDGER].read_sales(
            merchant_no=merchant_no, reference=reference, store_no=key.store_no
        )
    ]
    return sorted(found, key=lambda sale: sale.seq, reverse=True)
