-- First pages, no two the same, so that none is in a cache: every sort, with filters whose bounds move.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local headers = { ["Authorization"] = "Bearer " .. token }
local sorts = { "created_at", "-created_at", "due_at", "-due_at", "priority", "-priority", "updated_at", "-updated_at" }
local filters = { "", "&status=pending", "&priority=high,urgent", "&tag=t3", "&status=pending,completed&priority=low" }
local n = 0

function request()
  n = n + 1
  local micros = (run * 7919 + number * 500000 + n) % 1000000
  local bound = n % 2 == 0 and "due_after=2030-01-01T00:00:00." or "due_before=2032-01-01T00:00:00."
  local path = string.format("/api/v1/tasks?limit=50&sort=%s&%s%06dZ%s", sorts[n % 8 + 1], bound, micros, filters[n % 5 + 1])
  return wrk.format("GET", path, headers)
end
