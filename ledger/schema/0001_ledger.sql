-- The ledger: a double-entry journal that the database itself keeps exact, what feeds it (appearances) and what
-- settles it (payouts). Money is bigint base units; a posting above zero credits an account, below zero debits it, and
-- every entry sums to zero per asset. Instants are the database's clock.

CREATE SCHEMA ledger;

-- ── Who may write ──────────────────────────────────────────────────────────────────────────────────────────────────

-- One writer at a time. Whoever takes a new epoch shuts out every earlier holder: the writers' tables check the
-- session's `ledger.epoch` against this row, under a lock that a new epoch has to wait for.
CREATE TABLE ledger.fence (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    epoch    bigint NOT NULL DEFAULT 0,
    owner    text NOT NULL DEFAULT '',
    taken_at timestamptz NOT NULL DEFAULT now(),
    seen_at  timestamptz NOT NULL DEFAULT now()   -- the writer's sign of life
);
INSERT INTO ledger.fence DEFAULT VALUES;

CREATE FUNCTION ledger.check_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held bigint := nullif(current_setting('ledger.epoch', true), '')::bigint;
    now_valid bigint;
BEGIN
    SELECT epoch INTO now_valid FROM ledger.fence FOR SHARE;
    IF held IS DISTINCT FROM now_valid THEN
        RAISE EXCEPTION 'this writer holds epoch %, the ledger is at epoch %', coalesce(held::text, 'none'), now_valid
            USING ERRCODE = 'PX001';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is append-only', TG_TABLE_NAME USING ERRCODE = 'PX002';
END $$;

-- ── Accounts and the journal ───────────────────────────────────────────────────────────────────────────────────────

-- chain        what the treasury holds on chain, as a debit: its balance is minus the treasury's
-- reward_pool  what deposits have funded and appearances have not yet used
-- maturing     earned, and still open to reversal; payable: earned, waiting for a payout (owner: creator or investor)
-- in_flight    in a payout that is not settled
-- platform     the platform's share; for SOL what it spent on fees and rent (below zero)
CREATE TABLE ledger.accounts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('chain', 'reward_pool', 'maturing', 'payable', 'in_flight', 'platform')),
    party      text NOT NULL DEFAULT '' CHECK (party IN ('', 'creator', 'investor')),
    owner      bigint NOT NULL DEFAULT 0,
    asset      text NOT NULL DEFAULT 'PIX' CHECK (asset IN ('PIX', 'SOL')),
    balance    bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, party, owner, asset),
    CHECK ((kind IN ('maturing', 'payable')) = (party <> '')),
    CHECK (party <> '' OR owner = 0),
    CONSTRAINT balance_not_negative CHECK (balance >= 0 OR kind = 'chain' OR (kind = 'platform' AND asset = 'SOL'))
);
CREATE INDEX accounts_payable ON ledger.accounts (balance) WHERE kind = 'payable' AND balance > 0;
INSERT INTO ledger.accounts (kind, asset) VALUES
    ('chain', 'PIX'), ('chain', 'SOL'), ('reward_pool', 'PIX'), ('in_flight', 'PIX'), ('platform', 'PIX'), ('platform', 'SOL');

-- The end of the hash chain. Whoever writes an entry moves it, so entries are numbered without gaps.
CREATE TABLE ledger.chain_head (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    entry_id bigint NOT NULL DEFAULT 0,
    hash     bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(hash) = 32)
);
INSERT INTO ledger.chain_head DEFAULT VALUES;

-- hash = sha256(prev_hash ‖ id ‖ occurred_at in µs ‖ lines ‖ sha256(kind) ‖ sha256(key) ‖ sha256(document) ‖ sha256(postings)),
-- integers as 8 bytes big-endian, a posting as account ‖ amount in the order of its line. `content` is the hash of
-- what the caller asked for, so that a key that comes again with other content is told apart from a repetition.
CREATE TABLE ledger.entries (
    id          bigint PRIMARY KEY,
    kind        text NOT NULL CHECK (kind ~ '^[a-z_]{1,40}$'),
    key         text NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    content     bytea NOT NULL CHECK (length(content) = 32),
    document    text NOT NULL DEFAULT '{}' CHECK (document IS JSON OBJECT),
    lines       integer NOT NULL CHECK (lines >= 2),
    reverses    bigint REFERENCES ledger.entries,
    epoch       bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    prev_hash   bytea NOT NULL,
    hash        bytea NOT NULL UNIQUE CHECK (length(hash) = 32)
);
CREATE INDEX entries_occurred ON ledger.entries (occurred_at);
CREATE UNIQUE INDEX entries_reversed_once ON ledger.entries (reverses) WHERE reverses IS NOT NULL;

CREATE TABLE ledger.postings (
    entry_id   bigint NOT NULL REFERENCES ledger.entries,
    line       integer NOT NULL CHECK (line >= 1),
    account_id bigint NOT NULL REFERENCES ledger.accounts,
    amount     bigint NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (entry_id, line)
);
CREATE INDEX postings_account ON ledger.postings (account_id, entry_id) INCLUDE (amount);

CREATE FUNCTION ledger.link_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.chain_head SET entry_id = NEW.id, hash = NEW.hash
    WHERE entry_id = NEW.id - 1 AND hash = NEW.prev_hash;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'entry % does not continue the hash chain', NEW.id USING ERRCODE = 'PX003';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION ledger.entry_hash(entry ledger.entries) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(
        entry.prev_hash || int8send(entry.id) || int8send((extract(epoch FROM entry.occurred_at) * 1000000)::bigint)
        || int8send(entry.lines::bigint) || sha256(convert_to(entry.kind, 'UTF8')) || sha256(convert_to(entry.key, 'UTF8'))
        || sha256(convert_to(entry.document, 'UTF8'))
        || sha256((SELECT string_agg(int8send(account_id) || int8send(amount), ''::bytea ORDER BY line)
                   FROM ledger.postings WHERE entry_id = entry.id)))
$$;

-- At commit: the lines are all there, they sum to zero in each asset, and the hash is true of them.
CREATE FUNCTION ledger.verify_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found integer;
    worst bigint;
BEGIN
    SELECT coalesce(sum(lines), 0), max(abs(total)) INTO found, worst
    FROM (SELECT count(*) AS lines, sum(p.amount)::bigint AS total
          FROM ledger.postings p JOIN ledger.accounts a ON a.id = p.account_id
          WHERE p.entry_id = NEW.id GROUP BY a.asset) per_asset;
    IF found <> NEW.lines THEN
        RAISE EXCEPTION 'entry % has % postings of %', NEW.id, found, NEW.lines USING ERRCODE = 'PX004';
    ELSIF worst <> 0 THEN
        RAISE EXCEPTION 'entry % does not sum to zero', NEW.id USING ERRCODE = 'PX004';
    ELSIF ledger.entry_hash(NEW) IS DISTINCT FROM NEW.hash THEN
        RAISE EXCEPTION 'the hash of entry % is not true of it', NEW.id USING ERRCODE = 'PX003';
    END IF;
    RETURN NULL;
END $$;

-- Balances are moved by postings and by nothing else. Accounts are locked in the order of their ids, so that two
-- writers never wait for each other.
CREATE FUNCTION ledger.apply_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added JOIN ledger.entries e ON e.id = added.entry_id WHERE added.line > e.lines) THEN
        RAISE EXCEPTION 'a posting has no line in its entry' USING ERRCODE = 'PX004';
    END IF;
    PERFORM FROM ledger.accounts WHERE id IN (SELECT account_id FROM added) ORDER BY id FOR NO KEY UPDATE;
    UPDATE ledger.accounts a SET balance = a.balance + moved.amount
    FROM (SELECT account_id, sum(amount)::bigint AS amount FROM added GROUP BY account_id) moved
    WHERE a.id = moved.account_id;
    RETURN NULL;
END $$;

CREATE FUNCTION ledger.guard_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.balance = 0 THEN
        RETURN NEW;
    ELSIF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1
          AND (NEW.id, NEW.kind, NEW.party, NEW.owner, NEW.asset) = (OLD.id, OLD.kind, OLD.party, OLD.owner, OLD.asset) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a balance changes through postings only' USING ERRCODE = 'PX002';
END $$;

CREATE TRIGGER a_fenced BEFORE INSERT ON ledger.entries FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
CREATE TRIGGER linked BEFORE INSERT ON ledger.entries FOR EACH ROW EXECUTE FUNCTION ledger.link_entry();
CREATE CONSTRAINT TRIGGER verified AFTER INSERT ON ledger.entries DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger.verify_entry();
CREATE TRIGGER applied AFTER INSERT ON ledger.postings REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.apply_postings();
CREATE TRIGGER guarded BEFORE INSERT OR UPDATE OR DELETE ON ledger.accounts
    FOR EACH ROW EXECUTE FUNCTION ledger.guard_account();
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.postings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER kept BEFORE TRUNCATE ON ledger.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- Two-phase transfers: money leaves `source` when the transfer is pending, reaches `target` when it is posted, and is
-- back at `source` when it is voided or has expired. The rail (chain, bank) is another table's affair.
CREATE TABLE ledger.transfers (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source        bigint NOT NULL REFERENCES ledger.accounts,
    target        bigint NOT NULL REFERENCES ledger.accounts,
    amount_pix    bigint NOT NULL CHECK (amount_pix > 0),
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'posted', 'voided', 'expired')),
    pending_entry bigint NOT NULL REFERENCES ledger.entries,
    final_entry   bigint REFERENCES ledger.entries,
    expires_at    timestamptz,
    CHECK (source <> target),
    CHECK ((state = 'pending') = (final_entry IS NULL))
);
CREATE INDEX transfers_pending ON ledger.transfers (source) WHERE state = 'pending';

CREATE FUNCTION ledger.guard_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'pending' OR NEW.state = 'pending'
       OR (NEW.source, NEW.target, NEW.amount_pix, NEW.pending_entry)
          IS DISTINCT FROM (OLD.source, OLD.target, OLD.amount_pix, OLD.pending_entry) THEN
        RAISE EXCEPTION 'transfer % is % and stays so', OLD.id, OLD.state USING ERRCODE = 'PX005';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.transfers FOR EACH ROW EXECUTE FUNCTION ledger.guard_transfer();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- ── Appearances ────────────────────────────────────────────────────────────────────────────────────────────────────

-- One life of one Serve replica. Its searches are numbered from 0; `recorded` is how many have reached the table
-- below. A batch moves it by compare-and-swap, so batches neither overlap nor leave gaps, whoever writes them.
CREATE TABLE ledger.incarnations (
    id         uuid PRIMARY KEY,
    spool      text NOT NULL,              -- the file's name in the spool folder
    machine    text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    recorded   bigint NOT NULL DEFAULT 0 CHECK (recorded >= 0),
    folded     bigint NOT NULL DEFAULT 0 CHECK (folded BETWEEN 0 AND recorded),  -- the fold's cursor
    closed_at  timestamptz
);
CREATE INDEX incarnations_open ON ledger.incarnations (started_at) WHERE folded < recorded OR closed_at IS NULL;

CREATE TABLE ledger.appearance_batches (
    incarnation uuid NOT NULL REFERENCES ledger.incarnations,
    seq         bigint NOT NULL CHECK (seq >= 0),        -- number of its first search
    searches    integer NOT NULL CHECK (searches BETWEEN 1 AND 100000),
    appearances integer NOT NULL CHECK (appearances >= 0),
    format      smallint NOT NULL,
    payload     bytea NOT NULL,
    sha256      bytea NOT NULL CHECK (sha256 = sha256(payload)),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (incarnation, seq)
);
ALTER TABLE ledger.appearance_batches ALTER payload SET STORAGE EXTERNAL;
CREATE TRIGGER kept BEFORE UPDATE ON ledger.appearance_batches
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- What became of each appearance of a batch, one byte each (ledger/fold.py names them): the entry's money can be
-- computed again from the batches and these.
CREATE TABLE ledger.outcomes (
    incarnation uuid NOT NULL,
    seq         bigint NOT NULL,
    fold_id     bigint NOT NULL,
    outcome     bytea NOT NULL,
    PRIMARY KEY (incarnation, seq),
    FOREIGN KEY (incarnation, seq) REFERENCES ledger.appearance_batches ON DELETE CASCADE
);
CREATE TABLE ledger.folds (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_id    bigint REFERENCES ledger.entries,        -- none when nothing was earned
    batches     integer NOT NULL,
    appearances integer NOT NULL,
    funded      integer NOT NULL,
    unfunded    integer NOT NULL,
    amount_pix  bigint NOT NULL CHECK (amount_pix >= 0),
    folded_at   timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE ledger.outcomes ADD FOREIGN KEY (fold_id) REFERENCES ledger.folds;
CREATE TRIGGER a_fenced BEFORE INSERT ON ledger.folds FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- Who has seen what, as sorted runs of 64-bit keys with the second each was seen: one run a fold, merged over time.
CREATE TABLE ledger.seen_runs (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    keys     bytea NOT NULL,               -- little-endian uint64, ascending
    seconds  bytea NOT NULL,               -- little-endian uint32, seconds since 1970
    newest_at timestamptz NOT NULL,
    CHECK (length(keys) = 2 * length(seconds) AND length(keys) % 8 = 0)
);
CREATE INDEX seen_runs_newest ON ledger.seen_runs (newest_at);

-- A client's Idempotency-Key (as a keyed hash with its principal): the first search that carries it counts.
CREATE TABLE ledger.idempotency (
    key        bytea PRIMARY KEY CHECK (length(key) = 16),
    content    bytea NOT NULL CHECK (length(content) = 8),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Earned per UTC day, for caps and statements. `subject` is a segment's or creator's id, or a viewer's hash.
CREATE TABLE ledger.days (
    day         date NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('creator', 'segment', 'viewer')),
    subject     bytea NOT NULL CHECK (length(subject) IN (8, 16)),
    appearances bigint NOT NULL CHECK (appearances >= 0),
    amount_pix  bigint NOT NULL CHECK (amount_pix >= 0),
    PRIMARY KEY (day, kind, subject)
);

-- Earnings that are not payable yet, in buckets. The sum of an account's buckets is its balance.
CREATE TABLE ledger.maturing (
    account_id bigint NOT NULL REFERENCES ledger.accounts,
    matures_at timestamptz NOT NULL,
    amount_pix bigint NOT NULL CHECK (amount_pix >= 0),
    PRIMARY KEY (account_id, matures_at)
);
CREATE INDEX maturing_due ON ledger.maturing (matures_at);

CREATE TABLE ledger.segment_stakes (
    segment_id   bigint NOT NULL,
    investor_id  bigint NOT NULL,
    pix_invested bigint NOT NULL CHECK (pix_invested > 0),
    since        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (segment_id, investor_id)
);

-- A hold stops payouts to one creator; a freeze stops all of them. Both end by being released, never by deletion.
CREATE TABLE ledger.holds (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    creator_id  bigint NOT NULL,
    reason      text NOT NULL,
    placed_at   timestamptz NOT NULL DEFAULT now(),
    until       timestamptz,
    released_at timestamptz
);
CREATE INDEX holds_open ON ledger.holds (creator_id) WHERE released_at IS NULL;
CREATE TABLE ledger.freezes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason      text NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}',
    placed_at   timestamptz NOT NULL DEFAULT now(),
    released_at timestamptz
);
CREATE UNIQUE INDEX freezes_open ON ledger.freezes (reason) WHERE released_at IS NULL;

-- ── Wallets ────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE ledger.wallets (
    creator_id bigint PRIMARY KEY,
    wallet     text NOT NULL CHECK (length(wallet) BETWEEN 32 AND 44),
    set_by     text NOT NULL CHECK (set_by IN ('manifest', 'creator', 'admin')),
    set_at     timestamptz NOT NULL DEFAULT now(),
    hold_until timestamptz                   -- payouts wait until then after a change
);
CREATE TABLE ledger.wallet_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    creator_id bigint NOT NULL,
    old_wallet text,
    new_wallet text NOT NULL,
    set_by     text NOT NULL,
    set_at     timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.wallet_changes
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE FUNCTION ledger.log_wallet() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.wallet_changes (creator_id, old_wallet, new_wallet, set_by)
    VALUES (NEW.creator_id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.wallet END, NEW.wallet, NEW.set_by);
    RETURN NULL;
END $$;
CREATE TRIGGER logged AFTER INSERT OR UPDATE OF wallet ON ledger.wallets
    FOR EACH ROW EXECUTE FUNCTION ledger.log_wallet();

-- Token accounts that exist on chain. The platform opens one per creator, ever.
CREATE TABLE ledger.token_accounts (
    wallet     text NOT NULL,
    mint       text NOT NULL,
    address    text NOT NULL UNIQUE,
    creator_id bigint,                       -- for whom the platform paid; none when it was there before
    batch_id   text,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (wallet, mint)
);
CREATE UNIQUE INDEX token_accounts_once ON ledger.token_accounts (creator_id) WHERE creator_id IS NOT NULL;

-- ── Payouts ────────────────────────────────────────────────────────────────────────────────────────────────────────

-- One transaction to be. The id derives from what it does and a secret kept outside the database.
-- kind: accounts opens token accounts, payout pays, reclaim takes back the rent of markers.
CREATE TABLE ledger.batches (
    id         text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
    kind       text NOT NULL CHECK (kind IN ('accounts', 'payout', 'reclaim')),
    rail       text NOT NULL DEFAULT 'solana',
    state      text NOT NULL DEFAULT 'planned'
               CHECK (state IN ('planned', 'held', 'cancelled', 'signed', 'posted', 'failed')),
    count      integer NOT NULL CHECK (count > 0),
    amount_pix bigint NOT NULL CHECK (amount_pix >= 0),
    plan       jsonb NOT NULL DEFAULT '{}',  -- what a reader needs to build the transaction again
    parent     text REFERENCES ledger.batches,   -- a failed batch that was cut in two
    epoch      bigint NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    CHECK ((state IN ('posted', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK ((kind = 'payout') = (amount_pix > 0))
);
CREATE INDEX batches_live ON ledger.batches (planned_at) WHERE state IN ('planned', 'held', 'signed');

CREATE FUNCTION ledger.guard_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) IN (('planned', 'signed'), ('planned', 'held'), ('held', 'planned'), ('planned', 'cancelled'),
                                  ('held', 'cancelled'), ('signed', 'posted'), ('signed', 'failed'), ('signed', 'planned'))
       AND (NEW.id, NEW.kind, NEW.count, NEW.amount_pix) = (OLD.id, OLD.kind, OLD.count, OLD.amount_pix) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'batch % cannot go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'PX005';
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.batches FOR EACH ROW EXECUTE FUNCTION ledger.guard_batch();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.batches
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.batches
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

CREATE TABLE ledger.payouts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    creator_id   bigint NOT NULL,
    period       date NOT NULL,
    seq          integer NOT NULL CHECK (seq >= 0),
    wallet       text NOT NULL,
    amount_pix   bigint NOT NULL CHECK (amount_pix > 0),
    transfer_id  bigint NOT NULL UNIQUE REFERENCES ledger.transfers,
    batch_id     text NOT NULL REFERENCES ledger.batches,
    on_chain_pix bigint CHECK (on_chain_pix >= 0),   -- what the finalized transaction shows the recipient received
    planned_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (creator_id, period, seq)
);
CREATE INDEX payouts_batch ON ledger.payouts (batch_id);
CREATE INDEX payouts_creator ON ledger.payouts (creator_id, id DESC);

-- One signed transaction, kept whole before its first byte is sent. At most one of a batch may still land.
CREATE TABLE ledger.attempts (
    batch_id                text NOT NULL REFERENCES ledger.batches,
    n                       integer NOT NULL CHECK (n >= 1),
    signature               text NOT NULL UNIQUE CHECK (length(signature) BETWEEN 80 AND 90),
    raw                     bytea NOT NULL CHECK (length(raw) BETWEEN 65 AND 4096),
    blockhash               text NOT NULL,
    last_valid_block_height bigint NOT NULL CHECK (last_valid_block_height > 0),
    context_slot            bigint NOT NULL CHECK (context_slot >= 0),
    epoch                   bigint NOT NULL,
    state                   text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'landed', 'failed', 'expired')),
    signed_at               timestamptz NOT NULL DEFAULT now(),
    sent_at                 timestamptz,             -- last time the bytes were sent
    sends                   integer NOT NULL DEFAULT 0,
    ended_at                timestamptz,
    slot                    bigint,
    lamports                bigint CHECK (lamports >= 0),  -- what it cost the payer: fee and rent
    error                   text,
    PRIMARY KEY (batch_id, n),
    CHECK ((state = 'live') = (ended_at IS NULL)),
    CHECK (state NOT IN ('landed', 'failed') OR (slot IS NOT NULL AND lamports IS NOT NULL))
);
CREATE UNIQUE INDEX attempts_one_live ON ledger.attempts (batch_id) WHERE state IN ('live', 'landed');

CREATE FUNCTION ledger.guard_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'live' OR (NEW.batch_id, NEW.n, NEW.signature, NEW.raw, NEW.last_valid_block_height)
                              IS DISTINCT FROM (OLD.batch_id, OLD.n, OLD.signature, OLD.raw, OLD.last_valid_block_height) THEN
        RAISE EXCEPTION 'attempt % of batch % is % and stays so', OLD.n, OLD.batch_id, OLD.state USING ERRCODE = 'PX005';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.attempts FOR EACH ROW EXECUTE FUNCTION ledger.guard_attempt();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.attempts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.attempts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- A marker's rent is locked until `reclaimed_by` has taken it back.
CREATE TABLE ledger.markers (
    batch_id     text PRIMARY KEY REFERENCES ledger.batches,
    address      text NOT NULL UNIQUE,
    lamports     bigint NOT NULL CHECK (lamports >= 0),
    reclaimed_by text REFERENCES ledger.batches
);

-- What the chain's history says of the treasury: every finalized transaction that touched it, once.
CREATE TABLE ledger.chain_transactions (
    signature text PRIMARY KEY,
    slot      bigint NOT NULL,
    delta_pix bigint NOT NULL,                -- of the treasury's token account
    delta_lamports bigint NOT NULL,           -- of the payer's account
    kind      text NOT NULL CHECK (kind IN ('deposit', 'attempt', 'neutral', 'unknown')),
    entry_id  bigint REFERENCES ledger.entries,
    seen_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ledger.chain_cursors (
    address   text PRIMARY KEY,
    signature text NOT NULL,                  -- newest finalized one that was read with all before it
    slot      bigint NOT NULL
);

CREATE TABLE ledger.reconciliations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot        bigint NOT NULL,
    ok          boolean NOT NULL,
    journal_pix bigint NOT NULL,
    chain_pix   bigint NOT NULL,
    journal_lamports bigint NOT NULL,
    chain_lamports   bigint NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}',
    at          timestamptz NOT NULL DEFAULT now()
);

-- What the ledger's chain is: one mint and one treasury per deployment.
CREATE TABLE ledger.chain (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    genesis  text NOT NULL,
    mint     text NOT NULL,
    decimals smallint NOT NULL,
    treasury text NOT NULL,
    token_account text NOT NULL,
    made_at  timestamptz NOT NULL DEFAULT now()
);
