"""Call the sandbox's Pockyt in the same process: without a socket, and without delay."""

import json

from listener.pockyt.answer import PockytUnavailableError
from listener.pockyt.calls import Call, PockytCalls
from listener.sandbox.front import HTML_ERROR, Front


class DirectPockyt(PockytCalls):
    """A Pockyt in the same process, faults included: without a socket, and without delay."""

    def __init__(self, front: Front) -> None:
        self.front = front

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        """Hand a call to the front; a call that hangs times out at once."""
        served = self.front.serve(call, json.loads(body), request_id=request_id)
        if served.hangs:
            raise PockytUnavailableError("it did not answer in time", reason="timeout")
        if served.fails:
            raise PockytUnavailableError("HTTP 503", reason="status")
        return HTML_ERROR.encode() if served.is_html else served.body
