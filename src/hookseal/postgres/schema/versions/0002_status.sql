-- What `hookseal status` reads beside the deliveries: what each worker uses, and which endpoints are in trouble.
--
-- A delivery writes none of this. A worker writes the columns with its heartbeat; the rights to the tables have them.

ALTER TABLE hookseal.workers
    ADD COLUMN requests         integer,
    ADD COLUMN most_requests    integer,
    ADD COLUMN bytes            bigint,
    ADD COLUMN most_bytes       bigint,
    ADD COLUMN connections      integer,
    ADD COLUMN most_connections integer;
COMMENT ON COLUMN hookseal.workers.requests IS
    'Requests in flight at the last heartbeat, and in most_requests how many there may be. Null: the worker is of a version that does not say it';
COMMENT ON COLUMN hookseal.workers.bytes IS
    'Bytes of the bodies in flight, and in most_bytes how many there may be';
COMMENT ON COLUMN hookseal.workers.connections IS
    'Connections in use of the pool that is used most, and in most_connections how many it has';

-- Endpoints in trouble, those first that have been for longest.
CREATE INDEX held_endpoints_by_age ON hookseal.held_endpoints (since) WHERE released_at IS NULL;
CREATE INDEX lanes_by_age ON hookseal.lanes (since);
-- Secrets that stop to sign soon.
CREATE INDEX endpoints_overlapping ON hookseal.endpoints (previous_secret_expires_at) WHERE previous_secret_ref IS NOT NULL;
