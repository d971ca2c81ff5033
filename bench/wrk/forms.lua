-- One list of 50 in BENCH_FORMS forms that differ in a bound which bounds nothing: as many answers of the same size.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local forms = tonumber(os.getenv("BENCH_FORMS"))
local path = "/api/v1/tasks?limit=50&due_before=2032-01-01T00:00:00.%06dZ"
local head, tail
local n

function request()
  if not head then
    local whole = wrk.format("GET", string.format(path, 0), { ["Authorization"] = "Bearer " .. token })
    local at = whole:find("000000Z", 1, true)
    head, tail = whole:sub(1, at - 1), whole:sub(at + 6)
    -- the threads are as far apart as they can be
    n = number * math.floor(forms / 2)
  end
  n = n + 1
  return head .. string.format("%06d", n % forms) .. tail
end
