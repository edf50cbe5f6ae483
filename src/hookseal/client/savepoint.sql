-- A refused publish undoes itself and leaves the caller's transaction usable.

-- name: begin
SAVEPOINT hookseal_publish

-- name: keep
RELEASE SAVEPOINT hookseal_publish

-- name: undo
ROLLBACK TO SAVEPOINT hookseal_publish
