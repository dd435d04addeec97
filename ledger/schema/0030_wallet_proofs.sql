-- That who names a wallet holds its key is shown by signing a message of ours: at most one is open for each creator and
-- each caller who asked for it, and it is good for one answer, until `expires_at` by the database's clock.
CREATE TABLE ledger.wallet_challenges (
    creator_id bigint NOT NULL,
    asked_by   text NOT NULL CHECK (length(asked_by) BETWEEN 1 AND 200),  -- the key's principal, or a user of the command line
    wallet     text NOT NULL CHECK (length(wallet) BETWEEN 32 AND 44),
    nonce      text NOT NULL UNIQUE CHECK (nonce ~ '^[0-9a-f]{32}$'),
    message    text NOT NULL,
    issued_at  timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (creator_id, asked_by)
);

-- What was signed, kept so that anybody can verify it again. A nonce proves once.
CREATE TABLE ledger.wallet_proofs (
    nonce      text PRIMARY KEY,
    creator_id bigint NOT NULL,
    asked_by   text NOT NULL,
    wallet     text NOT NULL,
    message    text NOT NULL CHECK (position(wallet IN message) > 0 AND position(nonce IN message) > 0),
    signature  text NOT NULL CHECK (length(signature) BETWEEN 64 AND 88),
    proven_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.wallet_proofs
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- Which proof a wallet has, and what its hold is for: a proof ends the hold of a first wallet without one, never that of
-- a change. Of wallets that were set before this, no reason is known: theirs end with their time.
ALTER TABLE ledger.wallets
    ADD proof text REFERENCES ledger.wallet_proofs,
    ADD held_for text CHECK (held_for IN ('manifest', 'no proof', 'change'));

-- A proof is of its creator's wallet and of no other. A release that knows none changes a wallet as well: then the one of
-- before is gone, and no later proof ends the hold. What a hold is for is said once: no other reason takes its place.
CREATE FUNCTION ledger.check_wallet() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.wallet <> OLD.wallet THEN
        NEW.held_for := 'change';
        IF NEW.proof IS NOT DISTINCT FROM OLD.proof THEN
            NEW.proof := NULL;
        END IF;
    ELSIF TG_OP = 'UPDATE' AND (NEW.held_for IS NOT NULL OR OLD.held_for = 'change') THEN
        NEW.held_for := OLD.held_for;
    END IF;
    IF NEW.proof IS NOT NULL AND NOT EXISTS (
        SELECT FROM ledger.wallet_proofs p
        WHERE p.nonce = NEW.proof AND p.creator_id = NEW.creator_id AND p.wallet = NEW.wallet) THEN
        RAISE EXCEPTION 'proof % is not of wallet % of creator %', NEW.proof, NEW.wallet, NEW.creator_id
            USING ERRCODE = 'PX005';
    END IF;
    RETURN NEW;
END $$;
-- Before `guarded`, by its name: what it has checked, that one believes.
CREATE TRIGGER checked BEFORE INSERT OR UPDATE ON ledger.wallets
    FOR EACH ROW EXECUTE FUNCTION ledger.check_wallet();

-- A confirmation (see 0013) is also the first proof of a wallet that waits for nothing else. Never null: that would end a hold.
CREATE OR REPLACE FUNCTION ledger.confirms_wallet(before ledger.wallets, after ledger.wallets) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT after.wallet = before.wallet AND (
        before.set_by = 'manifest' AND after.set_by <> 'manifest'
        OR before.held_for IS NOT DISTINCT FROM 'no proof' AND before.proof IS NULL AND after.proof IS NOT NULL)
$$;

-- Keys for which anybody can make signatures: looked at again when a payout is planned (see 0013).
DELETE FROM ledger.checked_wallets WHERE wallet IN (
    '4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM', '4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziohZ',
    'Gx9dDNxzpALCowVuZb7pBceBLJugLA8sPa6TJDXrpfeW', 'Gx9dDNxzpALCowVuZb7pBceBLJugLA8sPa6TJDXrpfgi',
    'H242rsh5hzpvDdct56PG5YPQbKUT37EmySQLoQqrYUJr', 'H242rsh5hzpvDdct56PG5YPQbKUT37EmySQLoQqrYUM4',
    'H5xSWNRAbqKddKjrabehyU8drL3Dk4LgZJiEJc9rGGyC', 'H5xSWNRAbqKddKjrabehyU8drL3Dk4LgZJiEJc9rGH1Q',
    '3ctC68zTqpRDQShoondiQKDHwZDAUjRyxiPNdg8cD6Pe', '3ctC68zTqpRDQShoondiQKDHwZDAUjRyxiPNdg8cD6Rr',
    'EQAqmjhcsBQhpBv5GJkYgEB7emGHZNoo1j1yAjiFLNvD', 'EQAqmjhcsBQhpBv5GJkYgEB7emGHZNoo1j1yAjiFLNxR',
    '11111111111111111111111111111113D');
