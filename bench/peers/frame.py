"""The event that the peers send to tills, shaped and sized like the listener's."""

import struct

EVENT = (
    '{"type":"event","stream":"200043/303660","offset":%d,"event":{"specversion":"1.0",'
    '"id":"9f3c5a7be01d4f6ab2c8d9e0f1a2b3c4-%d","source":"/listener","type":"transaction.cancelled",'
    '"subject":"%s","time":"2026-11-23T10:11:12.345Z","datacontenttype":"application/json",'
    '"data":{"transactionNo":"%s","reference":"bench-000000001","merchantNo":"200043",'
    '"storeNo":"303660","terminal":null,"status":"cancelled","providerStatus":"closed",'
    '"stateVersion":1,"amount":"13.00","currency":"USD","reason":null,"evidence":"signature"}}}'
)


def event(offset: int, transaction_no: str) -> str:
    return EVENT % (offset, offset, transaction_no, transaction_no)


def encoded(text: str) -> bytes:
    """Make a server's text frame of 126 to 65,535 bytes."""
    payload = text.encode()
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
