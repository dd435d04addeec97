-- Creators whose token account is about to be opened are not looked at meanwhile; they are when that has ended, however.
CREATE FUNCTION ledger.wake_opened() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.woken (creator_id) SELECT (r->>0)::bigint FROM jsonb_array_elements(NEW.plan->'recipients') r;
    RETURN NULL;
END $$;
CREATE TRIGGER wakes AFTER UPDATE OF state ON ledger.batches
    FOR EACH ROW WHEN (NEW.kind = 'accounts' AND NEW.state IN ('posted', 'failed', 'cancelled'))
    EXECUTE FUNCTION ledger.wake_opened();
