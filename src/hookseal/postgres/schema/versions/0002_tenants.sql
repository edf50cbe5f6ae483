-- Tenants: their names, and which ids are taken.
--
-- A tenant needs no row before it publishes: events of any well-formed tenant are accepted, as before. A tenant gets its row
-- when it is added or gets its first endpoint. A row stays after the tenant was deleted, so that nobody else gets its id
-- while its events and deliveries are kept.

CREATE TABLE hookseal.tenants (
    tenant_id  text        PRIMARY KEY CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    -- A uid that could be the id of a tenant is the id of this one. So an id and a uid never mean different tenants.
    uid        text        CHECK (uid ~ '^[A-Za-z0-9._-]+$' AND length(uid) <= 256 AND uid NOT IN ('_system', '_operator')
                                  AND (uid = tenant_id OR uid !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$')),
    name       text        CHECK (length(name) BETWEEN 1 AND 256),
    metadata   json        NOT NULL DEFAULT '{}' CHECK (octet_length(metadata::text) <= 4096),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
COMMENT ON COLUMN hookseal.tenants.uid IS 'The name that the product gave it; null if it gave none';
COMMENT ON COLUMN hookseal.tenants.deleted_at IS
    'Since when it is deleted: it has no endpoint and gets none, and its id is taken while it has events or deliveries';
CREATE UNIQUE INDEX tenants_uid ON hookseal.tenants (uid) WHERE deleted_at IS NULL;
CREATE INDEX tenants_by_age ON hookseal.tenants (created_at, tenant_id) WHERE deleted_at IS NULL;

INSERT INTO hookseal.tenants (tenant_id, created_at, updated_at)
SELECT e.tenant_id, min(e.created_at), min(e.created_at)
FROM hookseal.endpoints AS e
WHERE e.tenant_id <> '_operator'
GROUP BY e.tenant_id;

-- Gives the tenant of a new endpoint its row, and refuses an endpoint of a tenant that is deleted. The lock of the row makes
-- this true while the tenant is being deleted.
CREATE FUNCTION hookseal.know_tenant() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO hookseal.tenants (tenant_id) VALUES (NEW.tenant_id) ON CONFLICT DO NOTHING;
    PERFORM FROM hookseal.tenants AS t WHERE t.tenant_id = NEW.tenant_id AND t.deleted_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'tenant % is deleted', NEW.tenant_id USING ERRCODE = 'HS409', COLUMN = 'tenant_id';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER endpoints_know_tenant AFTER INSERT OR UPDATE OF tenant_id ON hookseal.endpoints
    FOR EACH ROW WHEN (NEW.tenant_id <> '_operator')
    EXECUTE FUNCTION hookseal.know_tenant();
REVOKE EXECUTE ON FUNCTION hookseal.know_tenant() FROM PUBLIC;

-- As in 0001_publish.sql, and the tenant is not deleted. One that is deleted at the same moment may still get the event, which
-- stays with its history.
CREATE OR REPLACE FUNCTION hookseal.admit_tenant(tenant text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (tenant ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$' AND length(tenant) <= 63) IS NOT TRUE THEN
        RAISE EXCEPTION 'tenant must be 1 to 63 characters of A-Z, a-z, 0-9, ".", "_" and "-", '
            'beginning with a letter or digit' USING ERRCODE = 'HS422', COLUMN = 'tenant';
    END IF;
    IF NOT hookseal.may_publish(tenant) THEN
        RAISE EXCEPTION 'role % may not publish for tenant %', session_user, tenant USING ERRCODE = '42501';
    END IF;
    IF EXISTS (SELECT FROM hookseal.tenants AS t WHERE t.tenant_id = $1 AND t.deleted_at IS NOT NULL) THEN
        RAISE EXCEPTION 'the tenant is deleted' USING ERRCODE = 'HS409', COLUMN = 'tenant';
    END IF;
END
$$;
GRANT SELECT (tenant_id, deleted_at) ON hookseal.tenants TO hookseal_publisher;

GRANT SELECT ON hookseal.tenants TO hookseal_operator, hookseal_readonly;
GRANT INSERT (tenant_id, uid, name, metadata), UPDATE (uid, name, metadata, created_at, updated_at, deleted_at)
    ON hookseal.tenants TO hookseal_operator;
