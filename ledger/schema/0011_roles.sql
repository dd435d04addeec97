-- What the roles of `grants.sql` rest on.

-- The epoch only grows and there is one: who may take it (the ledger) can shut out an earlier writer, never let one in.
CREATE FUNCTION ledger.guard_fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the epoch % is over and does not come again', OLD.epoch USING ERRCODE = 'PX005';
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.fence FOR EACH ROW
    WHEN (NEW.epoch < OLD.epoch OR NEW.id IS DISTINCT FROM OLD.id) EXECUTE FUNCTION ledger.guard_fence();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.fence
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- The history of wallets is written by their table's trigger alone, with its owner's rights: who may set a wallet can
-- neither leave a change out nor make one up.
ALTER FUNCTION ledger.log_wallet() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
