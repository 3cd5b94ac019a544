"""Answer the header ``Expect``."""

from aiohttp import web
from aiohttp.http import HttpVersion11

from listener.web import notify
from listener.web.problem import ProblemError, problem


async def expect(request: web.Request) -> web.Response | None:
    """Refuse what cannot be met; 100 Continue is sent once the body is read (shapes/raw.py)."""
    # A list: a proxy may have joined what was sent twice.
    expected = {one.strip().lower() for one in request.headers.get("Expect", "").split(",")} - {""}
    if expected == {"100-continue"} or request.version < HttpVersion11:
        return None
    error = ProblemError(417, "unmet-expectation", "expect 100-continue, or nothing")
    if not notify.is_notify(request):
        return problem(error)
    merchant_no = request.match_info.get("merchantNo")
    return request.app[notify.RECEIVER].refuse(request, error, merchant_no=merchant_no)
