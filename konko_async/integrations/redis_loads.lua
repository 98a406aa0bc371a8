-- Calls in flight of each process, in one hash: reports those of this one, returns the others'.
-- KEYS[1]: the hash. ARGV: the process, its JSON, milliseconds after which a report is too old.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. '|' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], 600000)
local found = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local bar = string.find(all[i + 1], '|', 1, true)
    local age = now - tonumber(string.sub(all[i + 1], 1, bar - 1))
    if age <= tonumber(ARGV[3]) then
      found[#found + 1] = string.sub(all[i + 1], bar + 1)
    elseif age > 60000 then
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end
return found
