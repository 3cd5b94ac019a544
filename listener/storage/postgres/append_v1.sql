-- Number, chain and store a batch that was worked out before: the one thing that needs the lock.
--
-- Every seq past p_seen is provisional: it counts on from the newest entry that the batch knew, and
-- is moved on by what others have recorded since. Nothing of the batch is written, and no row is
-- returned, where one of those entries touches what the batch was worked out from; its node then
-- reads again. A changed function gets a new name, so that nodes of two versions run side by side.
CREATE FUNCTION append_v1(
    p_epoch text,
    -- the newest entry when the batch was read; whether something in it holds a seq of the batch
    -- inside, so that none can be moved on; and what was read
    p_seen bigint, p_is_exact boolean,
    g_merchant text[], g_no text[], f_merchant text[], f_fingerprint text[],
    r_merchant text[], r_reference text[], g_sale bigint[],
    -- new entries in order; e_tail is the text that is hashed past the seq and its comma
    e_recorded bigint[], e_kind text[], e_merchant text[], e_store text[], e_no text[],
    e_reference text[], e_terminal text[], e_word text[], e_says text[], e_amount text[],
    e_currency text[], e_settle text[], e_suspect text[], e_as_of bigint[], e_sale bigint[],
    e_fingerprint text[], e_fields text[], e_tail text[],
    -- events in order; the body before and after the entry's seq
    v_seq bigint[], v_stream text[], v_cancelled smallint[], v_before text[], v_after text[],
    -- transactions as they stand after the batch
    t_first bigint[], t_merchant text[], t_no text[], t_store text[], t_terminal text[],
    t_reference text[], t_amount text[], t_currency text[], t_settle text[], t_status text[],
    t_word text[], t_evidence text[], t_held smallint[], t_version bigint[], t_created bigint[],
    t_updated bigint[], t_sale bigint[], t_c_state text[], t_c_requested bigint[],
    t_c_resolved bigint[], t_c_evidence text[], t_a_why text[], t_a_since bigint[], t_a_due bigint[],
    t_a_raise bigint[], t_a_attempt bigint[], t_judge bigint[], t_disputed text[], t_summary text[],
    -- repeats
    c_seq bigint[], c_count bigint[], c_at bigint,
    -- sales as they stand after the batch
    s_seq bigint[], s_merchant text[], s_store text[], s_reference text[], s_no text[],
    s_refused smallint[], s_due bigint[], s_raise bigint[], s_cancel bigint[], s_sent smallint[],
    s_c_state text[], s_c_requested bigint[], s_c_resolved bigint[], s_c_evidence text[]
) RETURNS TABLE (head bigint, hash text, number bigint, offsets bigint[])
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    base bigint;
    shift bigint;
    first_number bigint;
    link text;
    hashes text[] := '{}';
    placed bigint[] := '{}';
BEGIN
    -- A lock without a row: nothing that is hot has dead versions, whatever snapshot stays open.
    PERFORM pg_advisory_xact_lock(1886350196, 1);
    -- Each statement from here on has a snapshot of its own, taken after the lock.
    IF (SELECT l.epoch FROM ledger l) IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the ledger has another epoch' USING ERRCODE = 'LE001';
    END IF;
    SELECT e.seq, e.hash INTO base, link FROM entries e ORDER BY e.seq DESC LIMIT 1;
    base := coalesce(base, 0);
    link := coalesce(link, repeat('0', 64));
    shift := base - p_seen;
    IF shift < 0 THEN
        RAISE EXCEPTION 'the ledger went back' USING ERRCODE = 'LE002';
    END IF;
    IF shift > 0 AND p_is_exact THEN RETURN; END IF;
    IF shift > 0 THEN
        PERFORM 1 FROM entries e WHERE e.seq BETWEEN p_seen + 1 AND base AND (
            (e.merchant_no, e.transaction_no) IN (SELECT * FROM unnest(g_merchant, g_no))
            OR (e.merchant_no, e.fingerprint) IN (SELECT * FROM unnest(f_merchant, f_fingerprint))
            OR (e.kind = 'sale'
                AND (e.merchant_no, e.reference) IN (SELECT * FROM unnest(r_merchant, r_reference)))
            OR e.sale_seq = ANY (g_sale)
        );
        IF FOUND THEN RETURN; END IF;
    END IF;
    FOR i IN 1 .. cardinality(e_kind) LOOP
        link := encode(sha256(convert_to(link || '[' || (base + i) || ',' || e_tail[i], 'UTF8')), 'hex');
        hashes[i] := link;
    END LOOP;
    INSERT INTO entries
        SELECT base + x.i, x.recorded, x.kind, x.merchant, x.store, x.no, x.reference, x.terminal,
               x.word, x.says, x.amount, x.currency, x.settle, x.suspect, x.as_of, x.sale,
               x.fingerprint, x.fields, x.hash
        FROM unnest(e_recorded, e_kind, e_merchant, e_store, e_no, e_reference, e_terminal, e_word,
                    e_says, e_amount, e_currency, e_settle, e_suspect, e_as_of, e_sale, e_fingerprint,
                    e_fields, hashes) WITH ORDINALITY
             x(recorded, kind, merchant, store, no, reference, terminal, word, says, amount, currency,
               settle, suspect, as_of, sale, fingerprint, fields, hash, i);
    SELECT v.number INTO first_number FROM events v ORDER BY v.number DESC LIMIT 1;
    first_number := coalesce(first_number, 0) + 1;
    IF cardinality(v_seq) > 0 THEN
        WITH told AS (
            SELECT x.*, row_number() OVER (PARTITION BY x.stream ORDER BY x.i) AS nth
            FROM unnest(v_seq, v_stream, v_cancelled, v_before, v_after) WITH ORDINALITY
                 x(seq, stream, cancelled, before, after, i)
        ), grown AS (
            SELECT s.stream, coalesce((SELECT v."offset" FROM events v WHERE v.stream = s.stream
                                       ORDER BY v."offset" DESC LIMIT 1), 0) AS head
            FROM (SELECT DISTINCT told.stream FROM told) s
        ), stored AS (
            INSERT INTO events AS v
                SELECT first_number - 1 + t.i, t.stream, g.head + t.nth, t.seq + shift, t.cancelled,
                       t.before || (t.seq + shift) || t.after
                FROM told t JOIN grown g ON g.stream = t.stream
            RETURNING v.number, v."offset"
        )
        SELECT array_agg(stored."offset" ORDER BY stored.number) INTO placed FROM stored;
        -- Heard when this commits; whoever misses it looks each second.
        PERFORM pg_notify('ledger', (first_number - 1 + cardinality(v_seq))::text);
    END IF;
    INSERT INTO transactions AS t (
            first_seq, merchant_no, transaction_no, store_no, terminal, reference, amount, currency,
            settle_currency, status, provider_status, evidence, held, state_version, created_at,
            updated_at, sale_seq, cancel_state, cancel_requested_at, cancel_resolved_at,
            cancel_evidence, ask_why, ask_since, ask_due_at, ask_raise_at, ask_attempt, judge_seq,
            disputed, summary)
        SELECT x.first + CASE WHEN x.first > p_seen THEN shift ELSE 0 END, x.merchant, x.no, x.store,
               x.terminal, x.reference, x.amount, x.currency, x.settle, x.status, x.word, x.evidence,
               x.held, x.version, x.created, x.updated,
               x.sale + CASE WHEN x.sale > p_seen THEN shift ELSE 0 END, x.c_state, x.c_requested,
               x.c_resolved, x.c_evidence, x.a_why, x.a_since, x.a_due, x.a_raise, x.a_attempt,
               x.judge + CASE WHEN x.judge > p_seen THEN shift ELSE 0 END, x.disputed, x.summary
        FROM unnest(t_first, t_merchant, t_no, t_store, t_terminal, t_reference, t_amount,
                    t_currency, t_settle, t_status, t_word, t_evidence, t_held, t_version, t_created,
                    t_updated, t_sale, t_c_state, t_c_requested, t_c_resolved, t_c_evidence, t_a_why,
                    t_a_since, t_a_due, t_a_raise, t_a_attempt, t_judge, t_disputed, t_summary)
             x(first, merchant, no, store, terminal, reference, amount, currency, settle, status, word,
               evidence, held, version, created, updated, sale, c_state, c_requested, c_resolved,
               c_evidence, a_why, a_since, a_due, a_raise, a_attempt, judge, disputed, summary)
        ON CONFLICT (first_seq) DO UPDATE SET
            store_no = excluded.store_no, terminal = excluded.terminal, reference = excluded.reference,
            amount = excluded.amount, currency = excluded.currency,
            settle_currency = excluded.settle_currency, status = excluded.status,
            provider_status = excluded.provider_status, evidence = excluded.evidence,
            held = excluded.held, state_version = excluded.state_version,
            updated_at = excluded.updated_at, sale_seq = excluded.sale_seq,
            cancel_state = excluded.cancel_state, cancel_requested_at = excluded.cancel_requested_at,
            cancel_resolved_at = excluded.cancel_resolved_at, cancel_evidence = excluded.cancel_evidence,
            ask_why = excluded.ask_why, ask_since = excluded.ask_since, ask_due_at = excluded.ask_due_at,
            ask_raise_at = excluded.ask_raise_at, ask_attempt = excluded.ask_attempt,
            judge_seq = excluded.judge_seq, disputed = excluded.disputed, summary = excluded.summary;
    INSERT INTO repeats AS r
        SELECT x.seq + CASE WHEN x.seq > p_seen THEN shift ELSE 0 END, x.count, c_at
        FROM unnest(c_seq, c_count) x(seq, count)
        ON CONFLICT (seq) DO UPDATE SET count = r.count + excluded.count, last_at = excluded.last_at;
    INSERT INTO sales AS s
        SELECT x.seq + CASE WHEN x.seq > p_seen THEN shift ELSE 0 END, x.merchant, x.store,
               x.reference, x.no, x.refused, x.due, x.raise,
               x.cancel + CASE WHEN x.cancel > p_seen THEN shift ELSE 0 END, x.sent, x.c_state,
               x.c_requested, x.c_resolved, x.c_evidence
        FROM unnest(s_seq, s_merchant, s_store, s_reference, s_no, s_refused, s_due, s_raise,
                    s_cancel, s_sent, s_c_state, s_c_requested, s_c_resolved, s_c_evidence)
             x(seq, merchant, store, reference, no, refused, due, raise, cancel, sent, c_state,
               c_requested, c_resolved, c_evidence)
        ON CONFLICT (seq) DO UPDATE SET
            transaction_no = excluded.transaction_no, is_refused = excluded.is_refused,
            ask_due_at = excluded.ask_due_at, ask_raise_at = excluded.ask_raise_at,
            cancel_seq = excluded.cancel_seq, cancel_sent = excluded.cancel_sent,
            cancel_state = excluded.cancel_state, cancel_requested_at = excluded.cancel_requested_at,
            cancel_resolved_at = excluded.cancel_resolved_at,
            cancel_evidence = excluded.cancel_evidence;
    RETURN QUERY SELECT base, link, first_number, placed;
END $$;
