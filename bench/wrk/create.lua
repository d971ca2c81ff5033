-- Creates, each with a key and a body of its own. BENCH_DUPLICATES=20: every 20th request is an earlier one again.
-- BENCH_LONG=1: titles of 40 characters, descriptions of 50.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local every = tonumber(os.getenv("BENCH_DUPLICATES") or "0")
local title, description = "Task %d of the benchmark", "Neither long nor short"
if os.getenv("BENCH_LONG") == "1" then
  title, description = "Task %08d of the benchmark, as usual", "Neither long nor short, like much of what is typed"
end
local text = '{"title":"' .. title .. '","description":"' .. description
  .. '","priority":"high","due_at":"2031-05-05T12:00:00Z","tags":["bench","t%d"]}'
local n = 0

local function create(number)
  json["Idempotency-Key"] = string.format("bench-%d-%d-%d", run, _G.number, number)
  local body = string.format(text, number, number % 10)
  return wrk.format("POST", "/api/v1/tasks", json, body)
end

function request()
  n = n + 1
  if every > 0 and n % every == 0 and n > 600 then
    return create(n - 599)
  end
  return create(n)
end
