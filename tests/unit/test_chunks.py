"""The chunks of a body are counted by their line ends, from one head to the next."""

from listener.web.chunks import CHUNKS_MAX, Chunks

ONE = b"1\r\na\r\n"


def test_a_body_may_come_in_just_so_many_chunks() -> None:
    chunks = Chunks()
    assert not chunks.are_too_many(b"POST / HTTP/1.1", goes_on=False)
    assert not chunks.are_too_many(ONE * CHUNKS_MAX, goes_on=True)
    assert chunks.are_too_many(ONE, goes_on=True)


def test_those_that_come_with_the_head_are_counted() -> None:
    chunks = Chunks()
    assert not chunks.are_too_many(b"POST / HTTP/1.1\r\n\r\n" + ONE * CHUNKS_MAX, goes_on=False)
    assert chunks.are_too_many(ONE, goes_on=True)


def test_the_next_request_begins_to_count_anew() -> None:
    chunks = Chunks()
    assert chunks.are_too_many(ONE * (CHUNKS_MAX + 1), goes_on=True)
    assert not chunks.are_too_many(b"POST / HTTP/1.1\r\n", goes_on=False)
    assert not chunks.are_too_many(ONE, goes_on=True)
