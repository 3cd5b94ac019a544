"""The routes by which a till follows statuses."""

from typing import Final

from listener.keys import Role
from listener.pos.events import AckBody, EventsPage, ResyncMembers
from listener.web.reference import examples
from listener.web.reference.operations import BAD_QUERY, AnswerSpec, BodySpec, Operation, Tag
from listener.web.shapes.models import Problem
from listener.web.shapes.parameters import EventsQuery
from listener.web.till import polling, socket


class Gone(Problem, ResyncMembers):
    """A position that cannot be resumed: forget it, read the snapshot, go on from `head`."""


FOLLOW: Final = (
    Operation(
        id="followStream",
        handler=socket.stream,
        method="GET",
        path="/v1/pos/stream",
        tag=Tag.FOLLOW,
        summary="Follow statuses over a websocket",
        says="Speaks the protocol `pos.v1`; AsyncAPI at `/asyncapi.json` describes it. The"
        " key is sent in the header or in the first frame. Except for the refusals below, the"
        " listener accepts the upgrade and then closes with a code.",
        answers={101: AnswerSpec(says="Switching to the websocket protocol `pos.v1`.")},
        problems={
            400: "The upgrade names subprotocols without `pos.v1`, or is not to a websocket.",
            403: "An `Origin` that is neither our own host nor among the setting `origins`.",
            426: "Not an upgrade to a websocket.",
            503: "A restart is under way.",
        },
        headers={"Origin": "What a browser sends.", "Sec-WebSocket-Protocol": "`pos.v1`, or none."},
        uses_ledger=False,
        curl="listener tail --url ws://127.0.0.1:8080 --key $KEY",
    ),
    Operation(
        id="readEvents",
        handler=polling.events,
        method="GET",
        path="/v1/pos/events",
        tag=Tag.FOLLOW,
        summary="Follow statuses without a websocket",
        says="Reads the same events by long-poll: ask again with `after` = the `epoch` and `next`"
        " of the answer. A terminal's first request on a stream stores its start, which `acked`"
        " then stands for; it acknowledges nothing.",
        roles=(Role.POS, Role.ADMIN),
        query=EventsQuery,
        answers={
            200: AnswerSpec(
                says="Events after the position, in order.",
                model=EventsPage,
                example=examples.EVENTS_PAGE,
            )
        },
        problems={
            400: f"{BAD_QUERY} Or no stream is named, and the key covers several:"
            " `stream-missing`, with their names as `streams`.",
            403: "The key may not follow this stream, or there is no such store.",
            410: "The position cannot be resumed: it is of another ledger, or beyond the head."
            " After a restore this also holds for `acked`.",
        },
        problem_models={410: Gone},
        curl='curl -H "Authorization: Bearer $KEY" \\\n'
        '  "$LISTENER/v1/pos/events?stream=200043/303660&after=acked&wait=25"',
    ),
    Operation(
        id="acknowledge",
        handler=polling.acks,
        method="POST",
        path="/v1/pos/acks",
        tag=Tag.FOLLOW,
        summary="Acknowledge events without a websocket",
        says="Every event of the stream up to the offset is handled. Cumulative and durable: an"
        " offset below the newest ack changes nothing.",
        roles=(Role.POS,),
        body=BodySpec(
            model=AckBody,
            example={"stream": "200043/303660", "epoch": "9f3c5d2a7e10b846", "offset": 1042},
        ),
        answers={204: AnswerSpec(says="Stored.")},
        problems={
            400: "The body is not JSON, or the offset is beyond the head.",
            403: "The key may not follow this stream, or there is no such store.",
            410: "The epoch is another ledger's.",
            413: "The body is too large.",
            422: "A member is missing or wrong (`errors` says which).",
        },
        problem_models={410: Gone},
        curl='curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\\n'
        '  -d \'{"stream":"200043/303660","epoch":"9f3c5d2a7e10b846","offset":1042}\' \\\n'
        '  "$LISTENER/v1/pos/acks"',
    ),
)
