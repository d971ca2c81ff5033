-- Searches of one kind (BENCH_KIND), no two the same, so that none is in a cache. The texts are those of
-- src/runs/search.rs.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local headers = { ["Authorization"] = "Bearer " .. token }
local kind = os.getenv("BENCH_KIND")
local q = {
  rare = "rare%d+",
  half = "half+",
  phrase = "%%22quarterly+report%%22",
  han = "%%E4%%BC%%9A%%E8%%AD%%B0%%E3%%81%%AE%%E6%%BA%%96%%E5%%82%%99",
  facets = "half+",
}
local syllables = { "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "xi", "yo", "zu" }
local n = 0

local function word(number)
  local text = ""
  for _ = 1, 4 do
    text = text .. syllables[number % 20 + 1]
    number = math.floor(number / 20)
  end
  return text
end

function request()
  n = n + 1
  local unique = run * 7919 + number * 500000 + n
  local path
  if kind == "suggest" then
    path = "/api/v1/tasks/suggest?q=" .. string.sub(word(unique % 20000), 1, 2 + n % 7) .. "&limit=" .. (1 + math.floor(n / 7) % 20)
  elseif kind == "mistakes" then
    local text = word(unique % 20000)
    path = "/api/v1/tasks/suggest?q=" .. string.sub(text, 1, 4) .. string.sub(text, 6, 6) .. string.sub(text, 5, 5) .. string.sub(text, 7)
  else
    local facets = kind == "facets" and "/facets" or ""
    path = string.format("/api/v1/tasks" .. facets .. "?due_before=2032-01-01T00:00:00.%06dZ&q=" .. q[kind], unique % 1000000, unique % 10000)
  end
  return wrk.format("GET", path, headers)
end
