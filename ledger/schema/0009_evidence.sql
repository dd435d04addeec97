-- Addresses that are the platform's own: no creator is paid there. Written by the ledger each time it opens its treasury;
-- an address stays, also after its key was replaced.
CREATE TABLE ledger.own_addresses (
    address text PRIMARY KEY CHECK (length(address) BETWEEN 32 AND 44),
    role    text NOT NULL CHECK (role IN ('treasury', 'payer of fees', 'mint', 'token account')),
    since   timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.own_addresses
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
INSERT INTO ledger.own_addresses (address, role)
    SELECT DISTINCT ON (address) address, role
    FROM ledger.chain, LATERAL (VALUES (treasury, 'treasury'), (mint, 'mint'), (token_account, 'token account'))
        AS own (address, role);

-- The wallet for which it was last asked whether it is payable: a wallet that an earlier release let in has not been, and
-- is looked at when a payout is planned. A later release with more rules empties the column.
ALTER TABLE ledger.wallets ADD checked_wallet text;

-- Transactions that were given up, of late: few, and asked about whenever something is planned or signed.
CREATE INDEX attempts_given_up ON ledger.attempts (signed_at) WHERE state = 'expired';

-- A person's wish that a batch without an end is ended by what the chain shows. The ledger answers it once; what it was
-- asked and what it found stay written.
CREATE TABLE ledger.resolutions (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id text NOT NULL REFERENCES ledger.batches,
    asked_by text NOT NULL CHECK (length(asked_by) BETWEEN 1 AND 200),
    asked_at timestamptz NOT NULL DEFAULT now(),
    done_at  timestamptz,
    ended    boolean,                                  -- whether the batch has ended by it
    outcome  text,
    evidence jsonb NOT NULL DEFAULT '{}',
    CHECK ((done_at IS NULL) = (ended IS NULL) AND (done_at IS NULL) = (outcome IS NULL))
);
CREATE UNIQUE INDEX resolutions_open ON ledger.resolutions (batch_id) WHERE done_at IS NULL;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.resolutions FOR EACH ROW
    WHEN (OLD.done_at IS NOT NULL OR (NEW.id, NEW.batch_id, NEW.asked_by, NEW.asked_at)
                                     IS DISTINCT FROM (OLD.id, OLD.batch_id, OLD.asked_by, OLD.asked_at))
    EXECUTE FUNCTION ledger.guard_stop();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER a_fenced BEFORE UPDATE ON ledger.resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
