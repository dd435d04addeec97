-- Up to which entry a review has seen what was earned. Where earnings are payable at once, those of later entries wait for it:
-- between a fold and its review nobody knows yet what of them counts. NULL until the ledger is at work for the first time.
CREATE TABLE ledger.reviewed (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    entry_id bigint
);
INSERT INTO ledger.reviewed DEFAULT VALUES;
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.reviewed
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
