-- The ledger on SQLite, version 1. Times are Unix milliseconds, UTC. Money is decimal text, as sent.
-- `entries` is the truth; `transactions`, `sales`, `streams` and `ledger` are what it adds up to,
-- changed in the same commit. `listener verify` works them out again and compares.

CREATE TABLE ledger (
    id           INTEGER PRIMARY KEY CHECK (id = 1), -- there is one row
    epoch        TEXT    NOT NULL,                   -- names this ledger; a restored backup gets a new one
    is_copy      INTEGER NOT NULL DEFAULT 0,         -- 1 in a backup until it is first served
    created_at   INTEGER NOT NULL,                   -- when this ledger was made
    seq          INTEGER NOT NULL DEFAULT 0,         -- of the newest entry
    hash         TEXT    NOT NULL,                   -- of the newest entry, hex SHA-256
    number       INTEGER NOT NULL DEFAULT 0,         -- of the newest event
    repeats      INTEGER NOT NULL DEFAULT 0,         -- deliveries beyond the first, of all entries
    transactions INTEGER NOT NULL DEFAULT 0,         -- how many there are
    keys_version INTEGER NOT NULL DEFAULT 0,         -- grows with every change of a key
    file         TEXT,                               -- which file was last served, to know a copy of it; NULL before
    secret       TEXT    NOT NULL                    -- seals the cursors of pages, hex; told to nobody
) STRICT;

CREATE TABLE entries (
    seq             INTEGER PRIMARY KEY,             -- 1, 2, 3 … without a hole, in commit order
    recorded_at     INTEGER NOT NULL,                -- the listener's clock; never used for order
    kind            TEXT    NOT NULL,                -- notification, sale, cancel_request, answer, query, alarm, decision
    merchant_no     TEXT    NOT NULL,                -- from the notify URL or the key, never from the message
    store_no        TEXT,                            -- of the notify URL or the sale; NULL where none is known
    transaction_no  TEXT    NOT NULL,                -- Pockyt's; '' where the message has none
    reference       TEXT,                            -- the merchant's own number of the sale
    terminal        TEXT,                            -- the till that spoke, for a sale or a cancel
    provider_status TEXT,                            -- Pockyt's word, untouched
    says            TEXT,                            -- our reading of that word; NULL where it tells nothing
    amount          TEXT,                            -- NULL where it is absent or unreadable
    currency        TEXT,                            -- ISO 4217, as sent
    settle_currency TEXT,                            -- ISO 4217, as sent
    suspect         TEXT,                            -- why a notification is not believed alone, seen from itself
    as_of           INTEGER,                         -- the ledger's seq when a query or a cancel was sent, or an operator looked
    sale_seq        INTEGER,                         -- the sale whose transaction number this entry brings; of a notification, the one that judges it by its reference
    fingerprint     TEXT,                            -- of a notification's fields, hex; NULL for what is not deduped
    fields          TEXT    NOT NULL,                -- JSON object: all that arrived, verifySign left out
    hash            TEXT    NOT NULL                 -- SHA-256 over the hash before and this row, hex
) STRICT;

-- One index finds a transaction's entries and refuses a repeat; it begins with the transaction
-- number, which rises with time, so that an insert stays cheap as the ledger grows.
CREATE UNIQUE INDEX entries_by_transaction ON entries (transaction_no, merchant_no, fingerprint);

CREATE TRIGGER entries_refuse_update BEFORE UPDATE ON entries
BEGIN SELECT RAISE (ABORT, 'entries are never changed'); END;
CREATE TRIGGER entries_refuse_delete BEFORE DELETE ON entries
BEGIN SELECT RAISE (ABORT, 'entries are never deleted'); END;

CREATE TABLE repeats (
    seq     INTEGER PRIMARY KEY REFERENCES entries,  -- the notification that came again
    count   INTEGER NOT NULL,                        -- deliveries beyond the first
    last_at INTEGER NOT NULL                         -- when it last came
) STRICT;

CREATE TABLE events (
    number    INTEGER PRIMARY KEY,                   -- 1, 2, 3 … over all streams: the offset in stream "*"
    stream    TEXT    NOT NULL,                      -- "<merchantNo>/<storeNo>" or "<merchantNo>/-"
    "offset"  INTEGER NOT NULL,                      -- 1, 2, 3 … in its stream without a hole
    seq       INTEGER NOT NULL REFERENCES entries DEFERRABLE INITIALLY DEFERRED, -- the entry that made it; checked at COMMIT
    cancelled INTEGER NOT NULL,                      -- 1 where it tells a till of a cancellation
    body      TEXT    NOT NULL                       -- CloudEvents JSON, sent as it is on every replay
) STRICT;

CREATE UNIQUE INDEX events_by_stream ON events (stream, "offset");
CREATE INDEX events_cancelled ON events (stream, "offset") WHERE cancelled = 1;

CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN SELECT RAISE (ABORT, 'events are never changed'); END;
CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
BEGIN SELECT RAISE (ABORT, 'events are never deleted'); END;

CREATE TABLE streams (
    stream TEXT    PRIMARY KEY,                      -- as in events
    head   INTEGER NOT NULL                          -- its newest offset
) STRICT, WITHOUT ROWID;

CREATE TABLE transactions (
    first_seq           INTEGER PRIMARY KEY,         -- of its first entry
    merchant_no         TEXT    NOT NULL,            -- with transaction_no its identity
    transaction_no      TEXT    NOT NULL,
    store_no            TEXT,                        -- the sale's, else the first that was named
    terminal            TEXT,                        -- the sale's, else of who asked for the cancel
    reference           TEXT,
    amount              TEXT,
    currency            TEXT,
    settle_currency     TEXT,
    status              TEXT    NOT NULL,            -- ours: unknown, created, pending, failed, cancelled, paid, conflict, refunded
    provider_status     TEXT,                        -- Pockyt's word for it
    evidence            TEXT    NOT NULL,            -- signature, answer, query, none
    held                INTEGER NOT NULL,            -- 1 while a notification is not believed alone
    state_version       INTEGER NOT NULL,            -- the number of its events
    created_at          INTEGER NOT NULL,            -- of its first entry
    updated_at          INTEGER NOT NULL,            -- of its newest entry
    sale_seq            INTEGER,                     -- the sale it is bound to
    judge_seq           INTEGER,                     -- the sale that judges its notifications: that one, or one with their reference
    disputed            TEXT,                        -- what its notifications contradict each other in, where no sale judges: amount,currency,reference
    summary             TEXT,                        -- JSON: what many entries add up to, so that they need not be read again; NULL of few
    cancel_state        TEXT,                        -- requested, confirmed, refused, refunded, unresolved
    cancel_requested_at INTEGER,
    cancel_resolved_at  INTEGER,
    cancel_evidence     TEXT,
    ask_why             TEXT,                        -- why Pockyt is to be asked; NULL where nothing is in doubt
    ask_since           INTEGER,                     -- since when that is in doubt
    ask_due_at          INTEGER,                     -- when to ask next; NULL once given up
    ask_raise_at        INTEGER,                     -- when to raise the silence; NULL once raised
    ask_attempt         INTEGER NOT NULL DEFAULT 0   -- how often it was asked
) STRICT;

CREATE UNIQUE INDEX transactions_by_number ON transactions (transaction_no, merchant_no);
CREATE INDEX transactions_by_time ON transactions (created_at);
CREATE INDEX transactions_by_store ON transactions (merchant_no, store_no, created_at);
-- Only a sale has a terminal, so that what Pockyt alone told costs nothing here.
CREATE INDEX transactions_by_terminal ON transactions (terminal, created_at) WHERE terminal IS NOT NULL;
CREATE INDEX transactions_by_till ON transactions (merchant_no, store_no, terminal, created_at) WHERE terminal IS NOT NULL;
CREATE INDEX transactions_by_reference ON transactions (reference, created_at);
-- What is settled and paid is most of the ledger and is read by time; the rest is looked for.
CREATE INDEX transactions_by_status ON transactions (status, created_at) WHERE status <> 'paid';
-- Few: what was cancelled, and what is held. A ledger of 0.2.0 gets these two when it is served; its version stays.
CREATE INDEX IF NOT EXISTS transactions_by_cancel ON transactions (cancel_state, created_at) WHERE cancel_state IS NOT NULL;
CREATE INDEX IF NOT EXISTS transactions_held ON transactions (created_at) WHERE held = 1;
CREATE INDEX transactions_due ON transactions (ask_due_at) WHERE ask_due_at IS NOT NULL;
CREATE INDEX transactions_to_cancel ON transactions (ask_due_at) WHERE ask_due_at IS NOT NULL AND ask_why = 'cancel';
CREATE INDEX transactions_to_raise ON transactions (ask_raise_at) WHERE ask_raise_at IS NOT NULL;

CREATE TABLE sales (
    seq                 INTEGER PRIMARY KEY REFERENCES entries, -- the sale's entry
    merchant_no         TEXT    NOT NULL,
    store_no            TEXT    NOT NULL,            -- a reference is the store's own
    reference           TEXT    NOT NULL,
    transaction_no      TEXT,                        -- NULL until Pockyt has told it
    is_refused          INTEGER NOT NULL DEFAULT 0,  -- 1 where Pockyt surely did not start it: its reference is free
    ask_due_at          INTEGER,                     -- when to look for it by its reference, or to take its wish over
    ask_raise_at        INTEGER,                     -- when to raise the silence about its cancel
    cancel_seq          INTEGER,                     -- the wish to cancel it that came before its number
    cancel_sent         INTEGER NOT NULL DEFAULT 0,  -- 1 once /cancel was sent for that by the reference
    cancel_state        TEXT,                        -- as in transactions
    cancel_requested_at INTEGER,
    cancel_resolved_at  INTEGER,
    cancel_evidence     TEXT
) STRICT;

CREATE UNIQUE INDEX sales_in_use ON sales (merchant_no, reference, store_no) WHERE is_refused = 0;
CREATE INDEX sales_by_reference ON sales (merchant_no, reference, is_refused, seq DESC);
CREATE INDEX sales_due ON sales (ask_due_at) WHERE ask_due_at IS NOT NULL;
CREATE INDEX sales_to_cancel ON sales (ask_due_at) WHERE ask_due_at IS NOT NULL AND cancel_seq IS NOT NULL;
CREATE INDEX sales_to_raise ON sales (ask_raise_at) WHERE ask_raise_at IS NOT NULL;

CREATE TABLE acks (
    terminal TEXT    NOT NULL,                       -- "<merchantNo>/<storeNo>/<terminal>", or "key:<id>" of a key without one
    stream   TEXT    NOT NULL,
    epoch    TEXT    NOT NULL,                       -- of the ledger whose events "offset" counts
    "offset" INTEGER NOT NULL,                       -- what "acked" means: the newest ack, the start until there is one
    acked    INTEGER,                                -- all up to here was handled, in whichever epoch; NULL until an ack
    acked_at INTEGER NOT NULL,                       -- of the newest ack, the start until there is one
    PRIMARY KEY (terminal, stream)
) STRICT, WITHOUT ROWID;

CREATE INDEX acks_by_stream ON acks (stream, acked);

CREATE TABLE keys (
    id          TEXT    PRIMARY KEY,                 -- shown in lists and logs
    hash        TEXT    NOT NULL,                    -- SHA-256 of the secret part, hex
    role        TEXT    NOT NULL,                    -- pos, ledger, admin
    merchant_no TEXT,                                -- NULL for every merchant
    store_no    TEXT,                                -- NULL for every store of the merchant
    terminal    TEXT,                                -- NULL for a key that several may share
    may_refund  INTEGER NOT NULL DEFAULT 0,          -- 1 where it may cancel what is paid
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    key_id          TEXT    NOT NULL,                -- who asked
    idempotency_key TEXT    NOT NULL,                -- the header Idempotency-Key
    request         TEXT    NOT NULL,                -- SHA-256 of method, path and body, hex
    status          INTEGER,                         -- NULL while the first is under way
    body            TEXT,
    recorded_at     INTEGER NOT NULL,
    PRIMARY KEY (key_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX answers_by_time ON answers (recorded_at);
