-- Who reads a pointer, or moves one, needs the new column of it; what is shown is written by the operator alone.

GRANT SELECT (tls_ref, tls_shown) ON hookseal.endpoints TO hookseal_worker, hookseal_readonly;
GRANT UPDATE (tls_ref) ON hookseal.endpoints TO hookseal_worker;
GRANT UPDATE (tls_ref, tls_shown) ON hookseal.endpoints TO hookseal_operator;
