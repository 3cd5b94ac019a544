-- The ledger on PostgreSQL, version 1. Times are Unix milliseconds, UTC. Money is decimal text, as sent.
-- `entries` is the truth; `transactions` and `sales` are what it adds up to, changed in the same
-- commit. `listener verify` works them out again and compares.
--
-- The twin of schema.sql: compare the two. What differs, and why: docs/adr/0008. Text sorts by its
-- bytes (COLLATE "C"), on every server alike. A NUL, which PostgreSQL's text cannot hold, is kept
-- escaped: see listener/storage/postgres/texts.py.

CREATE TABLE ledger (
    id             smallint PRIMARY KEY CHECK (id = 1), -- there is one row; nothing in it changes with an entry
    epoch          text COLLATE "C" NOT NULL,        -- names this ledger; a restored backup gets a new one
    is_copy        smallint NOT NULL DEFAULT 0,      -- 1 in a copy, and in one that was imported, until it is first served
    created_at     bigint   NOT NULL,                -- when this ledger was made
    system_id      bigint   NOT NULL,                -- the place that it was made in, or last served from: the cluster, this table and the database, in one number
    schema_version integer  NOT NULL,                -- of the newest listener that has served it
    keys_version   bigint   NOT NULL DEFAULT 0,      -- grows with every change of a key
    secret         text COLLATE "C" NOT NULL         -- seals the cursors of pages, hex; told to nobody
);

CREATE TABLE epochs (
    epoch    text COLLATE "C" PRIMARY KEY,           -- one that this ledger has had
    began_at bigint NOT NULL,                        -- when
    reason   text COLLATE "C" NOT NULL,              -- made, copied, restored, went_back
    seq      bigint NOT NULL,                        -- the newest entry at that time
    missing  bigint NOT NULL DEFAULT 0               -- after `went_back`: an entry that a node had seen, and that was gone
);

CREATE TABLE entries (
    seq             bigint PRIMARY KEY,              -- 1, 2, 3 … without a hole, in commit order
    recorded_at     bigint NOT NULL,                 -- the listener's clock; never used for order
    kind            text COLLATE "C" NOT NULL,       -- notification, sale, cancel_request, answer, query, alarm, decision
    merchant_no     text COLLATE "C" NOT NULL,       -- from the notify URL or the key, never from the message
    store_no        text COLLATE "C",                -- of the notify URL or the sale; NULL where none is known
    transaction_no  text COLLATE "C" NOT NULL,       -- Pockyt's; '' where the message has none
    reference       text COLLATE "C",                -- the merchant's own number of the sale
    terminal        text COLLATE "C",                -- the till that spoke, for a sale or a cancel
    provider_status text COLLATE "C",                -- Pockyt's word, untouched
    says            text COLLATE "C",                -- our reading of that word; NULL where it tells nothing
    amount          text COLLATE "C",                -- NULL where it is absent or unreadable
    currency        text COLLATE "C",                -- ISO 4217, as sent
    settle_currency text COLLATE "C",                -- ISO 4217, as sent
    suspect         text COLLATE "C",                -- why a notification is not believed alone, seen from itself
    as_of           bigint,                          -- the ledger's seq when a query or a cancel was sent, or an operator looked
    sale_seq        bigint,                          -- the sale whose transaction number this entry brings; of a notification, the one that judges it by its reference
    fingerprint     text COLLATE "C",                -- of a notification's fields, hex; NULL for what is not deduped
    fields          text COLLATE "C" NOT NULL,       -- JSON object: all that arrived, verifySign left out; never jsonb
    hash            text COLLATE "C" NOT NULL        -- SHA-256 over the hash before and this row, hex
);

-- One index finds a transaction's entries and refuses a repeat; it begins with the transaction
-- number, which rises with time, so that an insert stays cheap as the ledger grows.
CREATE UNIQUE INDEX entries_by_transaction ON entries (transaction_no, merchant_no, fingerprint);

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION '% are never changed or deleted', TG_TABLE_NAME USING ERRCODE = '23001'; END$$;
CREATE TRIGGER entries_refuse_change BEFORE UPDATE OR DELETE ON entries
FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER entries_refuse_truncate BEFORE TRUNCATE ON entries
FOR EACH STATEMENT EXECUTE FUNCTION refuse();

CREATE TABLE repeats (
    seq     bigint PRIMARY KEY,                      -- the notification that came again
    count   bigint NOT NULL,                         -- deliveries beyond the first
    last_at bigint NOT NULL                          -- when it last came
) WITH (fillfactor = 80);

CREATE TABLE events (
    number    bigint   PRIMARY KEY,                  -- 1, 2, 3 … over all streams: the offset in stream "*"
    stream    text COLLATE "C" NOT NULL,             -- "<merchantNo>/<storeNo>" or "<merchantNo>/-"
    "offset"  bigint   NOT NULL,                     -- 1, 2, 3 … in its stream without a hole
    seq       bigint   NOT NULL,                     -- the entry that made it
    cancelled smallint NOT NULL,                     -- 1 where it tells a till of a cancellation
    body      text COLLATE "C" NOT NULL              -- CloudEvents JSON, sent as it is on every replay
);

CREATE UNIQUE INDEX events_by_stream ON events (stream, "offset");
CREATE INDEX events_cancelled ON events (stream, "offset") WHERE cancelled = 1;

CREATE TRIGGER events_refuse_change BEFORE UPDATE OR DELETE ON events
FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER events_refuse_truncate BEFORE TRUNCATE ON events
FOR EACH STATEMENT EXECUTE FUNCTION refuse();

-- A row is changed by each of its entries: room on its page keeps that out of the indexes.
CREATE TABLE transactions (
    first_seq           bigint PRIMARY KEY,          -- of its first entry
    merchant_no         text COLLATE "C" NOT NULL,   -- with transaction_no its identity
    transaction_no      text COLLATE "C" NOT NULL,
    store_no            text COLLATE "C",            -- the sale's, else the first that was named
    terminal            text COLLATE "C",            -- the sale's, else of who asked for the cancel
    reference           text COLLATE "C",
    amount              text COLLATE "C",
    currency            text COLLATE "C",
    settle_currency     text COLLATE "C",
    status              text COLLATE "C" NOT NULL,   -- ours: unknown, created, pending, failed, cancelled, paid, conflict, refunded
    provider_status     text COLLATE "C",            -- Pockyt's word for it
    evidence            text COLLATE "C" NOT NULL,   -- signature, answer, query, none
    held                smallint NOT NULL,           -- 1 while a notification is not believed alone
    state_version       bigint NOT NULL,             -- the number of its events
    created_at          bigint NOT NULL,             -- of its first entry
    updated_at          bigint NOT NULL,             -- of its newest entry
    sale_seq            bigint,                      -- the sale it is bound to
    judge_seq           bigint,                      -- the sale that judges its notifications: that one, or one with their reference
    disputed            text COLLATE "C",            -- what its notifications contradict each other in, where no sale judges: amount,currency,reference
    summary             text COLLATE "C",            -- JSON: what many entries add up to, so that they need not be read again; NULL of few
    cancel_state        text COLLATE "C",            -- requested, confirmed, refused, refunded, unresolved
    cancel_requested_at bigint,
    cancel_resolved_at  bigint,
    cancel_evidence     text COLLATE "C",
    ask_why             text COLLATE "C",            -- why Pockyt is to be asked; NULL where nothing is in doubt
    ask_since           bigint,                      -- since when that is in doubt
    ask_due_at          bigint,                      -- when to ask next; NULL once given up
    ask_raise_at        bigint,                      -- when to raise the silence; NULL once raised
    ask_attempt         bigint NOT NULL DEFAULT 0    -- how often it was asked
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX transactions_by_number ON transactions (transaction_no, merchant_no);
CREATE INDEX transactions_by_time ON transactions (created_at, first_seq);
-- A small merchant does not drown among the others.
CREATE INDEX transactions_by_merchant ON transactions (merchant_no, created_at, first_seq);
CREATE INDEX transactions_by_store ON transactions (merchant_no, store_no, created_at, first_seq);
-- Only a sale has a terminal, so that what Pockyt alone told costs nothing here.
CREATE INDEX transactions_by_terminal ON transactions (terminal, created_at, first_seq) WHERE terminal IS NOT NULL;
CREATE INDEX transactions_by_till ON transactions (merchant_no, store_no, terminal, created_at, first_seq) WHERE terminal IS NOT NULL;
CREATE INDEX transactions_by_reference ON transactions (reference, created_at, first_seq);
-- What is settled and paid is most of the ledger and is read by time; the rest is looked for.
CREATE INDEX transactions_by_status ON transactions (status, created_at, first_seq) WHERE status <> 'paid';
-- Few: what was cancelled, and what is held. A ledger of 0.2.0 gets these two when it is served; its version stays.
CREATE INDEX IF NOT EXISTS transactions_by_cancel ON transactions (cancel_state, created_at, first_seq) WHERE cancel_state IS NOT NULL;
CREATE INDEX IF NOT EXISTS transactions_held ON transactions (created_at, first_seq) WHERE held = 1;
CREATE INDEX transactions_due ON transactions (ask_due_at, first_seq) WHERE ask_due_at IS NOT NULL;
CREATE INDEX transactions_to_cancel ON transactions (ask_due_at, first_seq) WHERE ask_due_at IS NOT NULL AND ask_why = 'cancel';
CREATE INDEX transactions_to_raise ON transactions (ask_raise_at, first_seq) WHERE ask_raise_at IS NOT NULL;

CREATE TABLE sales (
    seq                 bigint PRIMARY KEY,          -- the sale's entry
    merchant_no         text COLLATE "C" NOT NULL,
    store_no            text COLLATE "C" NOT NULL,   -- a reference is the store's own
    reference           text COLLATE "C" NOT NULL,
    transaction_no      text COLLATE "C",            -- NULL until Pockyt has told it
    is_refused          smallint NOT NULL DEFAULT 0, -- 1 where Pockyt surely did not start it: its reference is free
    ask_due_at          bigint,                      -- when to look for it by its reference, or to take its wish over
    ask_raise_at        bigint,                      -- when to raise the silence about its cancel
    cancel_seq          bigint,                      -- the wish to cancel it that came before its number
    cancel_sent         smallint NOT NULL DEFAULT 0, -- 1 once /cancel was sent for that by the reference
    cancel_state        text COLLATE "C",            -- as in transactions
    cancel_requested_at bigint,
    cancel_resolved_at  bigint,
    cancel_evidence     text COLLATE "C"
);

CREATE UNIQUE INDEX sales_in_use ON sales (merchant_no, reference, store_no) WHERE is_refused = 0;
CREATE INDEX sales_by_reference ON sales (merchant_no, reference, is_refused, seq DESC);
CREATE INDEX sales_due ON sales (ask_due_at) WHERE ask_due_at IS NOT NULL;
CREATE INDEX sales_to_cancel ON sales (ask_due_at) WHERE ask_due_at IS NOT NULL AND cancel_seq IS NOT NULL;
CREATE INDEX sales_to_raise ON sales (ask_raise_at) WHERE ask_raise_at IS NOT NULL;

-- No index on "offset" or "acked": it would be written with every acknowledgement.
CREATE TABLE acks (
    terminal text COLLATE "C" NOT NULL,              -- "<merchantNo>/<storeNo>/<terminal>", or "key:<id>" of a key without one
    stream   text COLLATE "C" NOT NULL,
    epoch    text COLLATE "C" NOT NULL,              -- of the ledger whose events "offset" counts
    "offset" bigint NOT NULL,                        -- what "acked" means: the newest ack, the start until there is one
    acked    bigint,                                 -- all up to here was handled, in whichever epoch; NULL until an ack
    acked_at bigint NOT NULL,                        -- of the newest ack, the start until there is one
    PRIMARY KEY (stream, terminal)
) WITH (fillfactor = 50);

CREATE TABLE keys (
    id          text COLLATE "C" PRIMARY KEY,        -- shown in lists and logs
    hash        text COLLATE "C" NOT NULL,           -- SHA-256 of the secret part, hex
    role        text COLLATE "C" NOT NULL,           -- pos, ledger, admin
    merchant_no text COLLATE "C",                    -- NULL for every merchant
    store_no    text COLLATE "C",                    -- NULL for every store of the merchant
    terminal    text COLLATE "C",                    -- NULL for a key that several may share
    may_refund  smallint NOT NULL DEFAULT 0,         -- 1 where it may cancel what is paid
    created_at  bigint NOT NULL,
    revoked_at  bigint
);

CREATE TABLE answers (
    key_id          text COLLATE "C" NOT NULL,       -- who asked
    idempotency_key text COLLATE "C" NOT NULL,       -- the header Idempotency-Key
    request         text COLLATE "C" NOT NULL,       -- SHA-256 of method, path and body, hex
    status          integer,                         -- NULL while the first is under way
    body            text COLLATE "C",
    recorded_at     bigint NOT NULL,
    PRIMARY KEY (key_id, idempotency_key)
);

CREATE INDEX answers_by_time ON answers (recorded_at);

-- Below: what several nodes tell each other. SQLite has one node, and none of it.

CREATE TABLE nodes (
    id          text COLLATE "C" PRIMARY KEY,        -- made anew with each start
    url         text COLLATE "C" NOT NULL,           -- where it answers
    version     text COLLATE "C" NOT NULL,           -- of the listener
    started_at  bigint NOT NULL,
    lag         bigint NOT NULL DEFAULT 0,           -- events that it has yet to publish
    clock_ms    bigint NOT NULL DEFAULT 0,           -- how far its clock is ahead of the database's
    lease_until bigint NOT NULL                      -- alive until then, by the database's clock
) WITH (fillfactor = 50);

CREATE TABLE turns (
    name  text COLLATE "C" PRIMARY KEY,              -- what one at a time works on: a transaction, a sale, the chasing
    node  text COLLATE "C" NOT NULL,                 -- who does
    until bigint NOT NULL                            -- free from then on, by the database's clock
) WITH (fillfactor = 50);

-- Unlogged: empty after a crash, and written again within a second by the nodes that live.
CREATE UNLOGGED TABLE presence (
    subscriber text COLLATE "C" NOT NULL,            -- as in acks.terminal
    session    text COLLATE "C" PRIMARY KEY,         -- its connection
    node       text COLLATE "C" NOT NULL,            -- where that is
    since      bigint NOT NULL,                      -- when it came, by the database's clock, in µs: of two of a terminal the later one stays
    shown_at   bigint NOT NULL,                      -- when this was written, likewise: a node that was paused shows its sessions late
    terminal   text COLLATE "C"                      -- NULL for a key that several may share
);

CREATE INDEX presence_by_time ON presence (shown_at) WHERE terminal IS NOT NULL;
