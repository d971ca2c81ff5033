-- Completes tasks that were made before, each once.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local n = 0

function request()
  n = n + 1
  json["Idempotency-Key"] = string.format("complete-%d-%d-%d", run, number, n)
  return wrk.format("POST", "/api/v1/tasks/" .. task_id(run, number, n) .. "/complete", json, "{}")
end
