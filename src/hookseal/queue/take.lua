-- Takes what is due, oldest first, and throws out what can be no ring of ours. All that is looked at is looked at and
-- taken in one step, so that nobody can exchange it in between; and nothing that is larger than a ring leaves Redis.
-- KEYS: the queue. ARGV: how many to take, how many to look at, for how many ms to hold each, and at most how many
-- bytes a job has. Returns ids and jobs in turn, and what was thrown out: reason, how many, and one of the ids.
local most, looks, hold, largest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken, dropped, counts = {}, {}, {}
local hex = '[0-9a-f]'
local uuid = '^' .. hex:rep(8) .. ('%-' .. hex:rep(4)):rep(3) .. '%-' .. hex:rep(12) .. '$'

local function drop(reason, id)
    if not counts[reason] then
        counts[reason] = #dropped + 2
        dropped[#dropped + 1] = reason
        dropped[#dropped + 1] = 0
        dropped[#dropped + 1] = id
    end
    dropped[counts[reason]] = dropped[counts[reason]] + 1
end

local function is_held(id)
    local key = 'arq:in-progress:' .. id
    local left = redis.call('PTTL', key)
    if left == -1 or left > hold then
        redis.call('UNLINK', key)
        drop('held_too_long', id)
        return false
    end
    return left ~= -2
end

local function take(id)
    local key = 'arq:job:' .. id
    local kind = redis.call('TYPE', key).ok
    local wrong = nil
    if kind == 'none' then
        wrong = 'no_job'
    elseif kind ~= 'string' then
        wrong = 'unreadable'
    elseif redis.call('STRLEN', key) > largest then
        wrong = 'too_large'
    end
    if wrong then
        redis.call('ZREM', KEYS[1], id)
        redis.call('UNLINK', key, 'arq:retry:' .. id)
        drop(wrong, id)
    else
        redis.call('SET', 'arq:in-progress:' .. id, '1', 'PX', hold)
        taken[#taken + 1] = id
        taken[#taken + 1] = redis.call('GET', key)
    end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, looks)) do
    if #taken >= 2 * most then
        break
    elseif #id ~= 36 or not id:match(uuid) then
        redis.call('ZREM', KEYS[1], id)
        drop('not_an_id', '')
    elseif not is_held(id) then
        take(id)
    end
end
return {taken, dropped}
