-- The rights that the objects of this revision need.

-- To lock an empty table takes a right to write it; who may only read it can lock out nobody but who alters it.
GRANT DELETE ON hookseal.key_lock TO hookseal_worker, hookseal_operator;
