-- Deliveries that wait for their endpoint.
SELECT 1;
