-- Who ended a hold or a freeze. Both are placed, and released once; nothing else of them changes and none is deleted.
ALTER TABLE ledger.holds ADD released_by text;
ALTER TABLE ledger.freezes ADD released_by text;

CREATE FUNCTION ledger.guard_stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% keeps what it says', TG_TABLE_NAME USING ERRCODE = 'PX005';
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.holds FOR EACH ROW
    WHEN (OLD.released_at IS NOT NULL OR (NEW.id, NEW.creator_id, NEW.reason, NEW.placed_at, NEW.until)
                                         IS DISTINCT FROM (OLD.id, OLD.creator_id, OLD.reason, OLD.placed_at, OLD.until))
    EXECUTE FUNCTION ledger.guard_stop();
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.freezes FOR EACH ROW
    WHEN (OLD.released_at IS NOT NULL OR (NEW.id, NEW.reason, NEW.detail, NEW.placed_at)
                                         IS DISTINCT FROM (OLD.id, OLD.reason, OLD.detail, OLD.placed_at))
    EXECUTE FUNCTION ledger.guard_stop();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.holds
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.freezes
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
