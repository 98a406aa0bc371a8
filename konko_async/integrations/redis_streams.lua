-- One act on one stream of the relay: see RedisStreamStore.
--
-- KEYS: info, log, stop, readers (one hash slot); ARGV: the act, and what it needs. Answers with a
-- list whose first item is "ok", or the word for what is wrong. Times are milliseconds of the
-- server's clock. Event n is entry n-0 of the log; the end is an entry too, so that who waits wakes.

local INFO, LOG, STOP, READERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local REMEMBERED = 86400000   -- for how long it is known that there was a stream
local OVERHEAD = 64
local PAGE = 256

local act = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function whole(number) return string.format('%.0f', number) end
local function get(field) return redis.call('HGET', INFO, field) end
local function number(field) return tonumber(get(field) or '0') end
local function set(...) redis.call('HSET', INFO, ...) end

local function lasts(millis)
  for _, key in ipairs({ LOG, STOP, READERS }) do redis.call('PEXPIRE', key, whole(millis)) end
  redis.call('PEXPIRE', INFO, whole(millis + REMEMBERED))
end

-- active, finished, expired (there was one), or nil
local function state()
  local kept = get('state')
  if not kept then return nil end
  if now >= number('gone') then return 'expired' end
  return kept
end

local function renew(lease)
  local due = math.max(number('due'), now + lease)
  local keep = number('keep')
  set('due', whole(due), 'gone', whole(due + keep))
  lasts(due + keep - now)
end

local function add(first)
  local count, size = number('count'), number('size')
  for i = first, #ARGV do
    count, size = count + 1, size + #ARGV[i] + OVERHEAD
    redis.call('XADD', LOG, whole(count) .. '-0', 'd', ARGV[i])
  end
  set('count', whole(count), 'size', whole(size))
  return count
end

local function unread()
  local left = number('left')
  local over = redis.call('ZRANGEBYSCORE', READERS, '-inf', whole(now), 'WITHSCORES')
  for i = 2, #over, 2 do left = math.max(left, tonumber(over[i])) end
  redis.call('ZREMRANGEBYSCORE', READERS, '-inf', whole(now))
  set('left', whole(left))
  return redis.call('ZCARD', READERS) > 0 and 0 or math.max(now - left, 0)
end

local now_is = state()

if act == 'create' then   -- info, lease, keep
  if now_is then return { 'exists' } end
  redis.call('DEL', LOG, STOP, READERS)
  set(
    'info', ARGV[2], 'state', 'active', 'count', '0', 'size', '0', 'left', whole(now), 'due', '0',
    'keep', ARGV[4], 'gone', '0'
  )
  renew(tonumber(ARGV[3]))
  return { 'ok' }
end

if act == 'info' then
  if not now_is then return { 'lost' } end
  return { 'ok', get('info'), now_is }
end

if act == 'stop' then
  if now_is == 'active' then
    set('stop', '1')
    redis.call('XADD', STOP, '*', 's', '')
    lasts(number('gone') - now)
  end
  return { 'ok' }
end

if act == 'leave' then   -- reader
  if redis.call('ZREM', READERS, ARGV[2]) == 1 then set('left', whole(now)) end
  return { 'ok' }
end

if act == 'finish' then   -- payloads
  if now_is ~= 'active' then return { 'ok' } end
  local count = add(2)
  redis.call('XADD', LOG, whole(count + 1) .. '-0', 'e', '')
  redis.call('XADD', STOP, '*', 'e', '')
  local keep = number('keep')
  set('state', 'finished', 'gone', whole(now + keep))
  lasts(keep)
  return { 'ok' }
end

if not now_is or now_is == 'expired' then return { 'lost' } end

if act == 'append' then   -- cap, payloads
  if now_is ~= 'active' then return { 'lost' } end
  local size = number('size')
  for i = 3, #ARGV do size = size + #ARGV[i] + OVERHEAD end
  if size > tonumber(ARGV[2]) then return { 'long' } end
  local count = add(3)
  lasts(number('gone') - now)
  return { 'ok', whole(count) }
end

if act == 'watch' then   -- lease
  if now_is == 'active' then renew(tonumber(ARGV[2])) end
  local over = (get('stop') or now_is == 'finished') and '1' or '0'
  local last = redis.call('XREVRANGE', STOP, '+', '-', 'COUNT', 1)
  return { 'ok', over, get('stop') and '1' or '0', whole(unread()), last[1] and last[1][1] or '0-0' }
end

if act == 'attend' then   -- reader, lease
  redis.call('ZADD', READERS, whole(now + tonumber(ARGV[3])), ARGV[2])
  lasts(number('gone') - now)
  return { 'ok' }
end

if act == 'read' then   -- after
  local entries =
    redis.call('XRANGE', LOG, whole(tonumber(ARGV[2]) + 1) .. '-0', '+', 'COUNT', PAGE)
  local answer, ended = { 'ok', '0', '0' }, now_is == 'finished' and #entries == 0
  for _, entry in ipairs(entries) do
    if entry[2][1] == 'e' then ended = true else answer[#answer + 1] = entry[2][2] end
  end
  answer[2] = ended and '1' or '0'
  answer[3] = whole(number('due') - now)
  return answer
end

return { 'unknown' }
