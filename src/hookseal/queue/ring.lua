-- Puts rings into the queue, due now by the clock of Redis, and wakes a worker. An id that is queued for later is due now.
-- KEYS: the queue and its bell. ARGV: the lifetime of a job in ms; by how many ms before now the rings are due; that time itself, or
-- empty; then id, job and turn of each ring: by how many ms it stands behind that time. Returns the time, for the call
-- that rings the rest of the rings.
local time = redis.call('TIME')
local due = tonumber(ARGV[3]) or time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2]
for each = 4, #ARGV, 3 do
    -- The job first: a worker drops an id without one.
    redis.call('PSETEX', 'arq:job:' .. ARGV[each], ARGV[1], ARGV[each + 1])
    redis.call('ZADD', KEYS[1], 'LT', due + ARGV[each + 2], ARGV[each])
end
redis.call('ZADD', KEYS[2], 0, 'ring')
return due
