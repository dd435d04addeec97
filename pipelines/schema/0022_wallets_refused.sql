-- In a migration of its own: searches go on while an index is made.
CREATE INDEX creators_refused ON media.creators (id) WHERE wallet_refused IS NOT NULL;
