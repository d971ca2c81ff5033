-- Writes owner versions, forwards only. KEYS: one of each owner. ARGV: when they expire (Unix time in ms, by the
-- writer's clock: a script that is run late writes nothing that lives), then a value for each key.
--
-- A value is 96 hexadecimal digits, written by projector and query-api, read by query-api (docs/redis.md):
--   1-16  change counter + 1; 0 while the owner has no row      17-32  when that was so, or earlier: Unix time in ms
--   33-48 revision; 0 while there is no row                     49-64  parked position; ffffffffffffffff: none
--   65-96 the owner
-- The first two together are compared as text: Lua's numbers have 53 bits only.
local written = 0
for n, key in ipairs(KEYS) do
    local new, old = ARGV[n + 1], redis.call('GET', key)
    if not old or #old ~= 96 or string.sub(old, 1, 32) < string.sub(new, 1, 32) then
        redis.call('SET', key, new, 'PXAT', ARGV[1])
        written = written + 1
    end
end
return written
