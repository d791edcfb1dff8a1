"""The Lua scripts of the shared limits: what happens in Redis, each call in one atomic step, and
what their replies say.

A window is a hash: `r<second>` and `t<second>` are the requests and tokens of one second,
`requests` and `tokens` their sums, `oldest` and `newest` the seconds between which buckets lie.
The rules are those of `limits.py`. Loops are bounded by the 61
buckets of a window and by the keys of a call.
"""

from collections.abc import Iterator
from typing import Literal

from apps.quotas.limits import LimitMet, Reading, Scope, retry_after_seconds

LIMIT_KINDS: dict[int, Literal["requests", "tokens", "concurrency"]] = {
    1: "requests",
    2: "tokens",
    3: "concurrency",
}

_COMMON = """
local WINDOW = 60
local clock = redis.call('TIME')
local now = tonumber(clock[1])
local now_ms = now * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function bucket_values(key, letter, first, last)
  local names = {}
  for second = first, last do names[#names + 1] = letter .. second end
  if #names == 0 then return {}, names end
  return redis.call('HMGET', key, unpack(names)), names
end

local function drop_buckets(key, letter, first, last)
  local values, names = bucket_values(key, letter, first, last)
  local total = 0
  for i = 1, #names do total = total + (tonumber(values[i]) or 0) end
  if #names > 0 then redis.call('HDEL', key, unpack(names)) end
  return total
end

-- Returns the window as it is now, its expired buckets removed.
local function open_window(key)
  local head = redis.call('HMGET', key, 'requests', 'tokens', 'oldest', 'newest')
  local oldest, newest = tonumber(head[3]), tonumber(head[4])
  if not oldest or not newest then
    return {requests = 0, tokens = 0, oldest = now, newest = now - WINDOW - 1}
  end
  -- The second case is a clock that was set back: its future would never expire.
  if newest < now - WINDOW or newest > now + WINDOW then
    redis.call('DEL', key)
    return {requests = 0, tokens = 0, oldest = now, newest = now - WINDOW - 1}
  end
  local window = {
    requests = tonumber(head[1]) or 0, tokens = tonumber(head[2]) or 0,
    oldest = oldest, newest = newest,
  }
  local last = now - WINDOW - 1
  if oldest <= last then
    window.requests = window.requests - drop_buckets(key, 'r', oldest, last)
    window.tokens = window.tokens - drop_buckets(key, 't', oldest, last)
    window.oldest = last + 1
    redis.call('HSET', key, 'requests', window.requests, 'tokens', window.tokens,
      'oldest', window.oldest)
  end
  return window
end

local function add(key, window, requests, tokens)
  window.requests = window.requests + requests
  window.tokens = window.tokens + tokens
  window.oldest = math.min(window.oldest, now)
  window.newest = math.max(window.newest, now)
  if requests > 0 then redis.call('HINCRBY', key, 'r' .. now, requests) end
  if tokens > 0 then redis.call('HINCRBY', key, 't' .. now, tokens) end
  redis.call('HSET', key, 'requests', window.requests, 'tokens', window.tokens,
    'oldest', window.oldest, 'newest', window.newest)
  redis.call('EXPIRE', key, WINDOW + 2)
end

local function reset_ms(window)
  return math.max(0, (window.newest + WINDOW + 1) * 1000 - now_ms)
end

local function hold_slot(key, request_id, lease_ms)
  -- ZADD first: a full Redis refuses it, but lets through what follows any other write.
  redis.call('ZADD', key, now_ms + lease_ms, request_id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
  redis.call('PEXPIRE', key, lease_ms + 1000)
end
"""

# KEYS: window and slots of each scope. ARGV: request id, tokens, lease in ms, then per scope the
# limits of requests, tokens and concurrency (-1: none).
# Returns {1, second, then per scope: requests, tokens, ms until the window is empty}, or
# {0, index of the scope, kind (1 requests, 2 tokens, 3 concurrency), held, ms to wait, to reset}.
ADMIT_SCRIPT = (
    _COMMON
    + """
local request_id, tokens, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function has_room(held, limit)
  return limit > 0 and (held + tokens <= limit or held == 0)
end

local function wait_ms(key, window, letter, held, is_free)
  local values = bucket_values(key, letter, window.oldest, window.newest)
  for i = 1, #values do
    held = held - (tonumber(values[i]) or 0)
    if is_free(held) then return (window.oldest + i + WINDOW) * 1000 - now_ms end
  end
  return WINDOW * 1000
end

local scopes = #KEYS / 2
local windows = {}
for i = 1, scopes do
  local window_key, slots_key = KEYS[2 * i - 1], KEYS[2 * i]
  local rpm, tpm = tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local concurrency = tonumber(ARGV[3 * i + 3])
  local window = open_window(window_key)
  windows[i] = window
  if rpm >= 0 and window.requests >= rpm then
    local wait = wait_ms(window_key, window, 'r', window.requests,
      function(held) return held < rpm end)
    return {0, i - 1, 1, window.requests, wait, reset_ms(window)}
  end
  if tpm >= 0 and not has_room(window.tokens, tpm) then
    local wait = wait_ms(window_key, window, 't', window.tokens,
      function(held) return has_room(held, tpm) end)
    return {0, i - 1, 2, window.tokens, wait, reset_ms(window)}
  end
  if concurrency >= 0 then
    local held = redis.call('ZCOUNT', slots_key, '(' .. string.format('%.0f', now_ms), '+inf')
    if held >= concurrency then return {0, i - 1, 3, held, 1000, 1000} end
  end
end

local reply = {1, now}
for i = 1, scopes do
  local window = windows[i]
  if tonumber(ARGV[3 * i + 1]) >= 0 or tonumber(ARGV[3 * i + 2]) >= 0 then
    add(KEYS[2 * i - 1], window, 1, tokens)
  end
  if tonumber(ARGV[3 * i + 3]) >= 0 then hold_slot(KEYS[2 * i], request_id, lease_ms) end
  reply[#reply + 1] = window.requests
  reply[#reply + 1] = window.tokens
  reply[#reply + 1] = reset_ms(window)
end
return reply
"""
)

# KEYS: first windows, then slots. ARGV: request id, second of the admission, tokens used beyond
# the reservation (negative: not used), number of windows.
FINISH_SCRIPT = (
    _COMMON
    + """
local request_id, second, correction = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local windows = tonumber(ARGV[4])
for i = windows + 1, #KEYS do redis.call('ZREM', KEYS[i], request_id) end
for i = 1, windows do
  local key = KEYS[i]
  local window = open_window(key)
  if correction > 0 then
    add(key, window, 0, correction)
  elseif second >= now - WINDOW then
    local reserved = tonumber(redis.call('HGET', key, 't' .. second)) or 0
    local given_back = math.min(-correction, reserved)
    if given_back > 0 then
      redis.call('HINCRBY', key, 't' .. second, -given_back)
      redis.call('HSET', key, 'tokens', window.tokens - given_back)
    end
  end
end
return {}
"""
)

# KEYS: slots. ARGV: lease in ms, then the request id in each of them.
RENEW_SCRIPT = (
    _COMMON
    + """
local lease_ms = tonumber(ARGV[1])
for i = 1, #KEYS do hold_slot(KEYS[i], ARGV[i + 1], lease_ms) end
return {}
"""
)


def limit_met_from(reply: list[int], scopes: tuple[Scope, ...]) -> LimitMet:
    """Return what a reply to ADMIT_SCRIPT that begins with 0 says."""
    _, index, kind, held, wait_ms, reset_ms = reply
    scope = scopes[index]
    name = LIMIT_KINDS[kind]
    limit = {"requests": scope.rpm, "tokens": scope.tpm, "concurrency": scope.concurrency}[name]
    return LimitMet(
        kind=name,
        scope=scope.name,
        retry_after_seconds=retry_after_seconds(wait_ms / 1000),
        limit=limit or 0,
        remaining=max(0, (limit or 0) - held),
        reset_seconds=reset_ms / 1000,
    )


def readings_from(reply: list[int]) -> Iterator[Reading]:
    """Yield, by scope, what a reply to ADMIT_SCRIPT that begins with 1 says."""
    for index in range(2, len(reply), 3):
        yield Reading(reply[index], reply[index + 1], reply[index + 2] / 1000)
