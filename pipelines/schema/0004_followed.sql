-- A model that is followed is not searched, and still gets a vector of every moment: the one that searches are about to
-- change to, and the one that they could go back to.
ALTER TABLE media.models ADD COLUMN followed boolean NOT NULL DEFAULT false;
ALTER TABLE media.models ADD CHECK (NOT (active AND followed));
