-- One path again and again. BENCH_PATH, BENCH_ETAG (then with If-None-Match).
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local headers = { ["Authorization"] = "Bearer " .. token }
local etag = os.getenv("BENCH_ETAG")
if etag and etag ~= "" then headers["If-None-Match"] = etag end
local path = os.getenv("BENCH_PATH")
local whole

function request()
  whole = whole or wrk.format("GET", path, headers)
  return whole
end
