-- Adds what one copy has admitted to what all have, and says how long it takes until that is paid back (GCRA). KEYS: one
-- for each client and policy. ARGV: for each, the microseconds in which one request is paid back, and how many were
-- admitted (below 0: given back). Answers, for each, microseconds from now.
--
-- A value is the Unix time in microseconds at which all is paid back, by the clock of Redis, and lives until then. Both
-- fit the 53 bits of Lua's numbers. Run twice, a client pays twice.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
for n, key in ipairs(KEYS) do
    local interval, admitted = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
    local before = tonumber(redis.call('GET', key) or '') or now
    local paid_back = math.max(before, now) + interval * admitted
    if paid_back > now then
        redis.call('SET', key, string.format('%.0f', paid_back), 'PX', math.ceil((paid_back - now) / 1000))
    else
        redis.call('DEL', key)
    end
    answers[n] = math.max(paid_back - now, 0)
end
return answers
