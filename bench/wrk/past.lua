-- What stood at some time of the year 2025 (BENCH_KIND: list or flow), no two the same, so that none is in a cache.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local headers = { ["Authorization"] = "Bearer " .. token }
local kind = os.getenv("BENCH_KIND")
local sorts = { "created_at", "-created_at", "due_at", "-due_at", "priority", "-priority", "updated_at", "-updated_at", "title", "-title" }
local filters = { "", "&status=pending", "&priority=high,urgent", "&tag=t3", "&status=pending,completed&priority=low" }
local n = 0

function request()
  n = n + 1
  local unique = run * 7919 + number * 500000 + n
  local path
  if kind == "flow" then
    -- a year that ends on another day, none of them after this was written, seen from another zone
    local month, day, zone = unique % 11 + 1, math.floor(unique / 11) % 28 + 1, math.floor(unique / 308) % 12
    path = string.format("/api/v1/stats/flow?from=2025-%02d-%02d&to=2026-%02d-%02d&time_zone=Etc/GMT-%d",
      month, day, month, day, zone)
  else
    path = string.format("/api/v1/tasks?limit=50&sort=%s&as_of=2025-%02d-%02dT%02d:00:00.%06dZ%s", sorts[n % 10 + 1],
      unique % 12 + 1, unique * 7 % 28 + 1, n % 24, unique % 1000000, filters[n % 5 + 1])
  end
  return wrk.format("GET", path, headers)
end
