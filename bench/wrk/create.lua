-- Creates, each with a key and a body of its own. BENCH_DUPLICATES=20: every 20th request is an earlier one again.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local every = tonumber(os.getenv("BENCH_DUPLICATES") or "0")
local n = 0

local function create(number)
  json["Idempotency-Key"] = string.format("bench-%d-%d-%d", run, _G.number, number)
  local body = string.format(
    '{"title":"Task %d of the benchmark","description":"Neither long nor short","priority":"high","due_at":"2031-05-05T12:00:00Z","tags":["bench","t%d"]}',
    number, number % 10)
  return wrk.format("POST", "/api/v1/tasks", json, body)
end

function request()
  n = n + 1
  if every > 0 and n % every == 0 and n > 600 then
    return create(n - 599)
  end
  return create(n)
end
