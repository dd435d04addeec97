-- An epoch that cannot follow the clock, which is behind it, goes on by up to 1,000 seconds of the clock: by steps of one, a restored
-- database would give epochs a second time that others hold since then.
DROP TRIGGER guarded ON ledger.fence;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.fence FOR EACH ROW
    WHEN (NEW.epoch < OLD.epoch OR NEW.id IS DISTINCT FROM OLD.id
          OR NEW.epoch > greatest(OLD.epoch + 1000000000, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
    EXECUTE FUNCTION ledger.guard_fence();
