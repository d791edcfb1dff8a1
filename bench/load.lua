-- The load of the benchmark for wrk: wrk … url -- body key [key …]
-- One key: one request, made beforehand. Several: one after the other.

local requests = {}
local position = 0

function init(args)
   wrk.method = "POST"
   wrk.body = args[1]
   wrk.headers["content-type"] = "application/json"
   for number = 2, #args do
      wrk.headers["authorization"] = "Bearer " .. args[number]
      requests[number - 1] = wrk.format()
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
