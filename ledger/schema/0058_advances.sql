-- What adoption has taken from reward_pool for creators after a restore: the chain had paid it, and the journal did not have what it
-- was earned by. Where that comes back with a replica's spool it is set off against it, once. By the freeze of the restore, whose
-- instant says what was shown before; by wallet, since creators who have one together are paid there for each other.
CREATE TABLE ledger.advances (
    freeze_id   bigint NOT NULL REFERENCES ledger.freezes (id),
    creator_id  bigint NOT NULL,
    wallet      text NOT NULL,
    amount_pix  bigint NOT NULL CHECK (amount_pix > 0),
    set_off_pix bigint NOT NULL DEFAULT 0 CHECK (set_off_pix BETWEEN 0 AND amount_pix),
    PRIMARY KEY (freeze_id, creator_id, wallet)
);
CREATE INDEX advances_open ON ledger.advances (freeze_id) WHERE set_off_pix < amount_pix;
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.advances
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- What folds have credited, while payouts are frozen by a restore, of what was shown before it, and matures only later: what the chain
-- has paid of it is taken from there.
CREATE TABLE ledger.folded_again (
    freeze_id  bigint NOT NULL REFERENCES ledger.freezes (id),
    creator_id bigint NOT NULL,
    amount_pix bigint NOT NULL CHECK (amount_pix >= 0),
    PRIMARY KEY (freeze_id, creator_id)
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.folded_again
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
