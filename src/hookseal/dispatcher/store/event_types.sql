-- The catalogue of event types, which is that of the installation.

-- What is shown of a type.
-- name: shown
t.name, t.description, t.schemas, t.deprecated, t.archived, t.created_at, t.updated_at

-- Adds a type, also in place of one that is archived.
-- name: add
INSERT INTO hookseal.event_types AS t (name, description, schemas, deprecated, archived)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE
SET description = excluded.description, schemas = excluded.schemas, deprecated = excluded.deprecated,
    archived = excluded.archived, updated_at = now()
WHERE t.archived
RETURNING {shown}

-- Returns a type.
-- name: get
SELECT {shown}
FROM hookseal.event_types AS t
WHERE t.name = $1

-- The same, and locks its row.
-- name: lock
SELECT {shown}
FROM hookseal.event_types AS t
WHERE t.name = $1
FOR UPDATE

-- Stores what was changed.
-- name: update
UPDATE hookseal.event_types AS t
SET description = $2, schemas = $3, deprecated = $4, archived = $5, updated_at = now()
WHERE t.name = $1
RETURNING {shown}

-- Returns the names of types that are not archived.
-- name: names
SELECT t.name
FROM hookseal.event_types AS t
WHERE NOT t.archived
ORDER BY t.name
LIMIT $1

-- Returns types after a name, by name.
-- name: ascending
SELECT {shown}
FROM hookseal.event_types AS t
WHERE ($1 OR NOT t.archived) AND ($2::text IS NULL OR t.name > $2)
ORDER BY t.name
LIMIT $3

-- The same, the last name first.
-- name: descending
SELECT {shown}
FROM hookseal.event_types AS t
WHERE ($1 OR NOT t.archived) AND ($2::text IS NULL OR t.name < $2)
ORDER BY t.name DESC
LIMIT $3
