-- What jobs must know of a model, kept beside it, so that one whose files are the same need not be loaded to be asked.
ALTER TABLE media.models
    ADD COLUMN files      text NOT NULL DEFAULT '',   -- a digest of its files; empty where they have no folder of their own
    ADD COLUMN image_size integer CHECK (image_size > 0),
    ADD COLUMN fit        text CHECK (fit IN ('squash', 'shortest', 'longest'));
