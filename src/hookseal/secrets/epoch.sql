-- The cache epoch. It belongs to the installation, so the statement has no tenant.

-- name: move
UPDATE hookseal.control
   SET epoch = epoch + 1
 WHERE name = 'cache'
RETURNING epoch
