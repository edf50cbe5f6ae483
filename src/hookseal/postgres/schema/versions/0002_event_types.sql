-- The catalogue of event types, for people: what each means, and the JSON schemas of its data. It restricts nothing: an
-- event is published, and an endpoint subscribes, whether its type is here or not.

CREATE TABLE hookseal.event_types (
    name        text        PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$' AND length(name) <= 128),
    description text        NOT NULL CHECK (length(description) <= 4096),
    schemas     text        CHECK (octet_length(schemas) <= 65536),
    deprecated  boolean     NOT NULL DEFAULT false,
    archived    boolean     NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN hookseal.event_types.schemas IS
    'A JSON object with a JSON schema for each version, byte for byte as it was given; null without';
COMMENT ON COLUMN hookseal.event_types.archived IS 'It is listed only for those who ask for archived ones';

GRANT SELECT ON hookseal.event_types TO hookseal_operator, hookseal_readonly;
GRANT INSERT (name, description, schemas, deprecated, archived),
      UPDATE (description, schemas, deprecated, archived, updated_at)
    ON hookseal.event_types TO hookseal_operator;
