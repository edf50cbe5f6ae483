-- Which versions may run on the schema. Versions older than this one cannot read it, and start only on their own revision.
--
-- It comes last, since processes that start, and heartbeats, wait for these two tables.

ALTER TABLE hookseal.alembic_version ADD COLUMN runs_from text;
COMMENT ON COLUMN hookseal.alembic_version.runs_from IS
    'The oldest revision whose version may run on this one. `hookseal db upgrade` writes it with each revision';

ALTER TABLE hookseal.workers ADD COLUMN revision text NOT NULL DEFAULT '0001';
COMMENT ON COLUMN hookseal.workers.revision IS
    'The newest revision that it knows. A migration on which it may not run is refused while it is live';
