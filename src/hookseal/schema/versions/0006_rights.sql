-- The rights that the objects of this revision need.
SELECT 1;
