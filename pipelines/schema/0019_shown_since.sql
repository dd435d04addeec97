-- Of a moment whose pictures its video showed before its content changed: since then. NULL: since the video has its content.
ALTER TABLE media.segments ADD shown_since timestamptz;
