-- The load of the benchmark for wrk: wrk … url -- file-of-the-body pause-ms key [key …]
-- One key: one request, made beforehand. Several: one after the other. A body that is a large prompt
-- would not fit on a command line.

local requests = {}
local position = 0

function init(args)
   wrk.method = "POST"
   local file = assert(io.open(args[1], "rb"))
   wrk.body = file:read("*a")
   file:close()
   local pause = tonumber(args[2])
   if pause > 0 then
      delay = function() return pause end
   end
   wrk.headers["content-type"] = "application/json"
   for number = 3, #args do
      wrk.headers["authorization"] = "Bearer " .. args[number]
      requests[number - 2] = wrk.format()
   end
   if #requests > 1 then
      request = function()
         position = position % #requests + 1
         return requests[position]
      end
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      "BENCH {\"requests\": %d, \"microseconds\": %d, \"bytes\": %d, \"p50\": %f, \"p99\": %f, \"max\": %f, " ..
      "\"connect\": %d, \"read\": %d, \"write\": %d, \"status\": %d, \"timeout\": %d}\n",
      summary.requests, summary.duration, summary.bytes,
      latency:percentile(50), latency:percentile(99), latency.max,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
