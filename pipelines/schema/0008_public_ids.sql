-- Ids that cannot be guessed, beside the numbers, which can be counted through: 122 random bits in 22 characters that a URL
-- takes as they are. New rows have one by the default, also those of the release before this one. Adding a column with a
-- default would rewrite the table under a lock that stops searches; so it is added empty here, at once, and filled by the
-- next migration, in a transaction of its own. A moment needs no column: its public id is its video's, with its start.
ALTER TABLE media.videos ADD COLUMN public_id text;
ALTER TABLE media.videos ALTER public_id
    SET DEFAULT translate(rtrim(encode(uuid_send(gen_random_uuid()), 'base64'), '='), '+/', '-_');
ALTER TABLE media.creators ADD COLUMN public_id text;
ALTER TABLE media.creators ALTER public_id
    SET DEFAULT translate(rtrim(encode(uuid_send(gen_random_uuid()), 'base64'), '='), '+/', '-_');
