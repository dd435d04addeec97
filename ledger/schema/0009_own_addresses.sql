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
