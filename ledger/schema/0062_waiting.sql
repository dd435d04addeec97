-- What waits says so, and since when.

-- Since when a creator could be paid and no payout is planned; nothing while they wait for an instant, a hold or a wallet.
ALTER TABLE ledger.owed ADD open_since timestamptz;
UPDATE ledger.owed SET open_since = now() WHERE parked_until IS NULL;
ALTER TABLE ledger.owed ALTER open_since SET DEFAULT now();
CREATE INDEX owed_open_since ON ledger.owed (open_since) WHERE open_since IS NOT NULL;

-- What a part of the ledger waits for: a service that is away, or a person.
CREATE TABLE ledger.waits (
    part  text PRIMARY KEY,
    why   text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.waits FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- A batch that was set aside is looked at by a person, and then waits for nobody any more.
ALTER TABLE ledger.set_aside ADD looked_at timestamptz, ADD looked_by text,
    ADD CHECK ((looked_at IS NULL) = (looked_by IS NULL));
DROP TRIGGER a_fenced ON ledger.set_aside;
CREATE TRIGGER a_fenced BEFORE INSERT ON ledger.set_aside FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
