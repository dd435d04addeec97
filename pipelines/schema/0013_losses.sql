-- What was lost is judged over the whole video: how many frames a chunk was to give, and how many of those that it gave
-- the decoder had made up. Rows of before say 0 frames: then nothing is judged.
ALTER TABLE media.staging ADD COLUMN frames integer NOT NULL DEFAULT 0 CHECK (frames >= 0);
ALTER TABLE media.staging ADD COLUMN concealed integer NOT NULL DEFAULT 0 CHECK (concealed >= 0);
