"""Keys: what each may follow, how one is made, and what is not let in."""

import hashlib
from dataclasses import replace

import pytest

from listener.keys import KEY_CHARS_MAX, Key, Role, authenticate, mint
from listener.ledger.scope import Scope


class Kept:
    """The keys that were stored; it fails on ids that no ledger could be asked for."""

    def __init__(self, *keys: Key) -> None:
        self._keys = {key.id: key for key in keys}
        self.asked: list[str] = []

    async def find_key(self, key_id: str) -> Key | None:
        self.asked.append(key_id)
        key_id.encode()
        return self._keys.get(key_id)

    async def keys_version(self) -> int:
        return 0

    async def revoked_keys(self) -> frozenset[str]:
        return frozenset()


def pos(
    *,
    merchant_no: str = "200043",
    store_no: str | None = None,
    terminal: str | None = None,
    may_refund: bool = False,
) -> tuple[Key, str]:
    return mint(
        role=Role.POS,
        now_ms=1,
        merchant_no=merchant_no,
        store_no=store_no,
        terminal=terminal,
        may_refund=may_refund,
    )


# How one is made.


def test_a_key_keeps_its_scope_and_when_it_was_made() -> None:
    key, _ = pos(store_no="303660", terminal="T-42", may_refund=True)
    assert (key.role, key.merchant_no, key.store_no) == (Role.POS, "200043", "303660")
    assert (key.terminal, key.may_refund) == ("T-42", True)
    assert (key.created_at_ms, key.revoked_at_ms) == (1, None)
    assert key.scope == Scope(merchant_no="200043", store_no="303660")


def test_a_key_is_stored_as_the_hash_of_256_random_bits() -> None:
    key, text = pos()
    prefix, key_id, secret = text.split("_", 2)
    assert (prefix, key_id) == ("lk", key.id)
    assert len(secret) == 43
    assert key.hash == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(key)
    assert len(text) <= KEY_CHARS_MAX


def test_no_two_keys_are_the_same() -> None:
    made = [pos() for _ in range(100)]
    assert len({key.id for key, _ in made}) == len({text for _, text in made}) == 100


def test_an_empty_text_is_not_a_scope() -> None:
    key, _ = mint(role=Role.ADMIN, now_ms=1, merchant_no="", store_no="")
    assert (key.merchant_no, key.store_no, key.terminal) == (None, None, None)


@pytest.mark.parametrize(
    ("role", "merchant_no", "store_no", "terminal", "may_refund", "why"),
    [
        (Role.POS, None, None, None, False, "needs a merchant"),
        (Role.POS, "", None, None, False, "needs a merchant"),
        (Role.ADMIN, None, "303660", None, False, "needs its merchant"),
        (Role.LEDGER, "200043", "303660", "T-42", False, "needs the role pos"),
        (Role.ADMIN, None, None, None, True, "only a pos key can refund"),
        (Role.LEDGER, "200043", None, None, True, "only a pos key can refund"),
        (Role.POS, "200043/1", None, None, False, "letters, digits"),
        (Role.POS, "200043", "303660\n", None, False, "letters, digits"),
        (Role.POS, "200043", "3" * 65, None, False, "letters, digits"),
        (Role.POS, "200043", "303660", "T/42", False, "a terminal"),
        (Role.POS, "200043", "303660", "T" * 65, False, "a terminal"),
        (Role.POS, "200043", "303660", "T\n42", False, "a terminal"),
        (Role.POS, "200043", "303660", "", False, "a terminal"),
        (Role.POS, "200043", "303660", "  ", False, "a terminal"),
    ],
)
def test_a_scope_that_does_not_fit_is_refused(
    role: Role,
    merchant_no: str | None,
    store_no: str | None,
    terminal: str | None,
    may_refund: bool,
    why: str,
) -> None:
    with pytest.raises(ValueError, match=why):
        mint(
            role=role,
            now_ms=1,
            merchant_no=merchant_no,
            store_no=store_no,
            terminal=terminal,
            may_refund=may_refund,
        )


@pytest.mark.parametrize("terminal", ["T-42", "Till 1", "Kasse Süd", "T" * 64])
def test_a_terminal_may_have_a_name_that_people_use(terminal: str) -> None:
    key, _ = pos(store_no="303660", terminal=terminal)
    assert key.terminal == terminal


def test_a_key_may_be_for_the_stream_of_no_store() -> None:
    key, _ = pos(store_no="-")
    assert key.streams(["303660"]) == ["200043/-"]


# What a key may follow.


def test_a_tills_key_follows_its_store_alone() -> None:
    key, _ = pos(store_no="303660", terminal="T-42")
    assert key.streams(["303660", "300014"]) == ["200043/303660"]
    assert key.may_follow("200043/303660")
    for stream in ("200043/300014", "200043/-", "200044/303660", "*", "200043", "", "200043/"):
        assert not key.may_follow(stream), stream


def test_a_merchants_key_follows_its_stores_and_what_has_none() -> None:
    key, _ = pos()
    assert key.streams(["303660", "300014"]) == ["200043/303660", "200043/300014", "200043/-"]
    assert all(key.may_follow(stream) for stream in key.streams(["303660", "300014"]))
    assert not key.may_follow("200044/303660")
    assert not key.may_follow("*")


def test_only_an_admin_of_everything_follows_everything() -> None:
    admin, _ = mint(role=Role.ADMIN, now_ms=1)
    assert admin.streams([]) == ["*"]
    assert admin.may_follow("*")
    assert admin.may_follow("200043/303660")
    of_merchant, _ = mint(role=Role.ADMIN, now_ms=1, merchant_no="200043")
    assert not of_merchant.may_follow("*")
    assert of_merchant.may_follow("200043/303660")
    ledger, _ = mint(role=Role.LEDGER, now_ms=1)
    assert not ledger.may_follow("*")
    assert not ledger.may_follow("200043/303660")


def test_acknowledgements_are_kept_for_the_terminal_else_for_the_key() -> None:
    till, _ = pos(store_no="303660", terminal="T-42")
    again, _ = pos(store_no="303660", terminal="T-42")
    assert till.subscriber == again.subscriber == "200043/303660/T-42"
    shared, _ = pos(store_no="303660")
    assert shared.subscriber == f"key:{shared.id}"


# Who is let in.


async def test_the_text_of_a_key_opens() -> None:
    key, text = pos()
    assert await authenticate(text, Kept(key)) == key


async def test_a_revoked_key_does_not_open() -> None:
    key, text = pos()
    assert await authenticate(text, Kept(replace(key, revoked_at_ms=2))) is None


async def test_a_key_of_another_ledger_does_not_open() -> None:
    _, text = pos()
    other, _ = pos()
    assert await authenticate(text, Kept(other)) is None


async def test_no_other_text_opens() -> None:
    key, text = pos()
    _, _, secret = text.split("_", 2)
    wrong = [
        "",
        "lk",
        "lk_",
        f"lk_{key.id}",
        f"lk_{key.id}_",
        f"lk__{secret}",
        f"lk_{key.id}_{secret[:-1]}",
        f"lk_{key.id}_{secret}x",
        f"lk_{key.id}_{key.hash}",
        f"lk_{key.id}_{secret.swapcase()}",
        f"xk_{key.id}_{secret}",
        f" {text}",
        text.upper(),
        text + "x" * KEY_CHARS_MAX,
        "lk_" + "x" * 10_000,
    ]
    for given in wrong:
        assert await authenticate(given, Kept(key)) is None, given


@pytest.mark.parametrize("given", ["lk_\udcff_x", "lk_ä_ö", "lk_\U0001f511_x"])
async def test_a_text_that_no_ledger_can_be_asked_for_is_not_looked_up(given: str) -> None:
    kept = Kept()
    assert await authenticate(given, kept) is None
    assert kept.asked == []


async def test_a_secret_that_is_not_text_does_not_open() -> None:
    key, text = pos()
    assert await authenticate(text + "\udcff", Kept(key)) is None


async def test_a_long_text_is_cut_before_it_is_looked_up() -> None:
    kept = Kept()
    await authenticate("lk_" + "x" * 10_000 + "_y", kept)
    await authenticate("lk_" + "x" * 100 + "_" + "y" * 10_000, kept)
    assert kept.asked == ["x" * 100]
