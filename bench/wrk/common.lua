-- What all scripts share. Environment: BENCH_TOKEN, BENCH_RUN (a number of this run, for keys and ids that are unique).
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,"bad_status":%d,"socket_errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency.max, e.status, e.connect + e.read + e.write + e.timeout))
end

run = tonumber(os.getenv("BENCH_RUN") or "0")
token = os.getenv("BENCH_TOKEN") or ""
json = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token }

-- The same in src/load.rs, which makes the tasks that complete.lua completes.
function task_id(run, thread, n)
  return string.format("%08x-0000-7000-8000-%04x%08x", run, thread, n)
end
