-- Locks, publish rights and bounds that only our own roles may touch.
SELECT 1;
