-- One turn of one process at one lane: what it tells is written down, the line is served, what was
-- granted is handed out. See redis.py for why this is a script of our own.
--
-- KEYS: state, window, processes (one hash slot); ARGV[1]: a StoreRequest as JSON, see limits/_store.py.
-- Answers with a line of numbers, see _told() in redis.py.
--
-- Times are microseconds of the server's clock, counted from s.t0 so that cjson, which writes 14
-- digits, keeps them whole; amounts are whole numbers.

local STATE, WINDOW, PROCESSES = KEYS[1], KEYS[2], KEYS[3]
local MARGIN, SLOTS, COVER = 1.004, 400, 1.0065   -- COVER = MARGIN + 1 / SLOTS, in windows
local SECOND = 1000000
local MAX_PAUSE = 120 * SECOND
local TURNS = 4            -- interactive calls in a row before a batch call that waits
local LOOK = 128           -- how far down the line is looked to say when to come back
local MOST_TICKETS = 64    -- of one process, per priority
local STALE = 5 * SECOND   -- who waits and is not heard of for so long has gone
local REGISTERED = 60 * SECOND
local RETURNING = 2.5 * SECOND   -- within it all have noticed that the server is back

local ask = cjson.decode(ARGV[1])
local me, W = ask.me, ask.window
local grain = W / SLOTS
local clock = redis.call('TIME')
local absolute = tonumber(clock[1]) * SECOND + tonumber(clock[2])

local function whole(number) return string.format('%.0f', number) end

-- ------------------------------------------------------------------ the state, and the window

local s
local raw = redis.call('GET', STATE)
if raw then
  s = cjson.decode(raw)
else
  redis.call('DEL', WINDOW)
  s = {
    t0 = whole(absolute - 2 * W), tr = 0, tt = 0, hr = 0, ht = 0, lr = 0, lt = 0, at = 2 * W,
    first = 2 * SLOTS, pause = 0, strikes = 0, until_ = 0, share = 1, since = 2 * W, nr = 0,
    nt = 0, qi = {}, qb = {}, streak = 0, granted = {}, seen = {},
  }
end
-- The clock of a server may be set back: time stands still until it is where it was.
local now = math.max(absolute - tonumber(s.t0), s.now or 0)
s.now = now
local slot = math.floor(now / grain)

local function charge(k, requests, tokens)
  if requests ~= 0 then redis.call('HINCRBY', WINDOW, 'r' .. whole(k), whole(requests)) end
  if tokens ~= 0 then redis.call('HINCRBY', WINDOW, 't' .. whole(k), whole(tokens)) end
  s.tr, s.tt = s.tr + requests, s.tt + tokens
  if k < s.first then s.first = k end
end

local function amounts(from, to)
  local fields = {}
  for k = from, to do
    fields[#fields + 1] = 'r' .. whole(k)
    fields[#fields + 1] = 't' .. whole(k)
  end
  return fields, redis.call('HMGET', WINDOW, unpack(fields))
end

local function over(k) return (k + 1) * grain + W * MARGIN end   -- when a slot leaves the window

local function expire()
  local last = math.floor((now - W * MARGIN) / grain) - 1
  if s.first > last then return end
  if last - s.first > 2 * SLOTS or (s.tr == 0 and s.tt == 0) then
    redis.call('DEL', WINDOW)
    s.tr, s.tt = 0, 0
  else
    local fields, found = amounts(s.first, last)
    for i = 1, #found, 2 do
      s.tr = s.tr - (tonumber(found[i]) or 0)
      s.tt = s.tt - (tonumber(found[i + 1]) or 0)
    end
    redis.call('HDEL', WINDOW, unpack(fields))
  end
  s.first = last + 1
end

-- ------------------------------------------------------------------ what holds

local function ceiling(configured, learned)
  if not ask.learn or learned == 0 then return configured end
  if configured == 0 then return learned end
  return math.min(configured, learned)
end

local R, T = {}, {}   -- requests, tokens: limit, burst, rate (per microsecond); limit nil: none

local function know()
  if s.share < 1 then
    -- Fast up to a little below where the rejection came, then slowly, see Belief.
    local passed, goal = now - s.since, s.goal or 0
    if s.share < goal then
      local fast = math.min((goal - s.share) / s.fast, passed)
      s.share, passed = s.share + fast * s.fast, passed - fast
    end
    s.share = math.min(1, s.share + passed / W * 0.1)
  end
  s.since = now
  local share = ask.learn and s.share or 1
  R, T = {}, {}
  local limit = ceiling(ask.requests, s.nr)
  if limit > 0 then
    R.limit = math.max(math.floor(limit), 1)
    local burst = math.max(1, math.floor(R.limit * 0.01))
    if ask.burst >= 0 then
      burst = math.max(math.floor(limit * ask.burst + 0.5), 1)
    elseif ask.requests == 0 then
      burst = math.max(math.floor(limit * 0.1 + 0.5), 1)
    end
    R.burst = math.min(burst, R.limit) + math.min(R.limit * 0.005, 0.5)
    -- What rejections take is the pace: a smaller window would be full of what was accepted before.
    R.rate = share * (R.limit - R.burst + 1) / (W * COVER)
  elseif s.ramp then
    -- No rate is known: from 0.7 of what went before, to four times of it, see limits/_pause.py.
    local share_ = 0.7 + math.max(now - s.ramp_from, 0) / SECOND * 0.1
    if share_ < 4 then
      R.burst, R.rate = 1, share_ * s.ramp
    else
      s.ramp = nil
    end
  end
  limit = ceiling(ask.tokens, s.nt)
  if limit > 0 then
    T.limit = math.max(limit, 1)
    local part = ask.burst >= 0 and ask.burst or (ask.tokens == 0 and 0.1 or 0.01)
    T.burst = T.limit * part
    local excess = math.max(T.burst - T.limit * 0.01, 0)
    T.rate = share * math.max(T.limit - excess, T.limit * 0.01) / (W * COVER)
  end
  if s.returning then
    -- Those who have not returned yet go on with their shares.
    local part = s.returned / s.returning
    if R.rate then R.rate = R.rate * part end
    if T.rate then T.rate = T.rate * part end
  end
end

local function welcome()
  if s.returning and now >= s.returning_until then s.returning = nil end
  if ask.returned and ask.returned > 1 and not s.returning then
    s.returning, s.returned, s.back = ask.returned, 0, {}
    s.returning_until = now + RETURNING
  end
  if s.returning and not s.back[me] then
    s.back[me] = true
    s.returned = s.returned + 1
    if s.returned >= s.returning then s.returning = nil end
  end
end

-- ------------------------------------------------------------------ the pace

-- `level` is the state itself, or a copy with which the future is predicted.
local function decay(level, t)
  local passed = t - level.at
  if passed <= 0 then return end
  level.at = t
  level.lr = R.rate and math.max(level.lr - passed * R.rate, 0) or 0
  if not T.rate then
    level.lt = 0
  elseif level.lt > 0 then
    level.lt = math.max(level.lt - passed * T.rate, 0)
  else
    level.lt = math.min(level.lt + passed * T.rate, 0)   -- credit of what was given back fades
  end
end

local function due(level, tokens)
  local wait = 0
  if R.rate and level.lr + 1 > R.burst then wait = (level.lr + 1 - R.burst) / R.rate end
  if T.rate then
    local above = level.lt - math.max(T.burst - tokens, 0)
    if above > 0 then wait = math.max(wait, above / T.rate) end
  end
  return level.at + wait
end

-- When the window has room; nil if it has now.
local function room(tokens)
  local lack_r = R.limit and s.tr + s.hr + 1 - R.limit or 0
  local lack_t = T.limit and s.tt + s.ht + tokens - T.limit or 0
  if s.tt + s.ht == 0 then lack_t = 0 end   -- above the whole limit: alone in its window
  if lack_r <= 0 and lack_t <= 0 then return nil end
  local last = math.min(s.first + SLOTS / 10, slot)
  local _, found = amounts(s.first, last)
  for i = 1, #found, 2 do
    lack_r = lack_r - (tonumber(found[i]) or 0)
    lack_t = lack_t - (tonumber(found[i + 1]) or 0)
    if lack_r <= 0 and lack_t <= 0 then return over(s.first + (i - 1) / 2) end
  end
  return over(last)
end

-- ------------------------------------------------------------------ the line

local function next_queue()
  if s.qi[1] and (not s.qb[1] or s.streak < TURNS) then return s.qi end
  return s.qb[1] and s.qb or nil
end

local head_due = 0

local function serve()
  local until_ = now
  while true do
    local queue = next_queue()
    if not queue then break end
    local ticket = queue[1]
    local pid, tokens = ticket[1], ticket[3]
    head_due = math.max(due(s, tokens), s.pause)
    if head_due > now + 1 then break end
    local free = room(tokens)
    if free then
      head_due = math.max(free, now + 1)
      until_ = now - W / 100   -- the window holds them, and this little the pace makes up for
      break
    end
    -- As of when it was due, not of now: who comes late takes nothing from those behind.
    decay(s, head_due)
    s.lr, s.lt = s.lr + 1, s.lt + tokens
    s.hr, s.ht = s.hr + 1, s.ht + tokens
    table.remove(queue, 1)
    s.streak = queue == s.qi and s.qb[1] and s.streak + 1 or 0
    s.granted[pid] = s.granted[pid] or {}
    table.insert(s.granted[pid], { ticket[2], tokens, queue == s.qi and 'i' or 'b' })
  end
  decay(s, until_)
end

local function give_back(requests, tokens)
  s.lr, s.lt = math.max(s.lr - requests, 0), s.lt - tokens
end

local function take_back(pid)   -- what was granted and not fetched
  local back = s.granted[pid] or {}
  for i = 1, #back do
    s.hr, s.ht = s.hr - 1, s.ht - back[i][2]
    give_back(1, back[i][2])
  end
  s.granted[pid] = nil
  return back
end

local function leave(pid)
  take_back(pid)
  for _, name in ipairs({ 'qi', 'qb' }) do
    local rest = {}
    for _, ticket in ipairs(s[name]) do
      if ticket[1] ~= pid then rest[#rest + 1] = ticket end
    end
    s[name] = rest
  end
  s.seen[pid] = nil
end

local function withdraw(seqs)
  local gone = {}
  for _, seq in ipairs(seqs) do gone[seq] = true end
  for _, name in ipairs({ 'qi', 'qb' }) do
    local rest = {}
    for _, ticket in ipairs(s[name]) do
      if ticket[1] ~= me or not gone[ticket[2]] then rest[#rest + 1] = ticket end
    end
    s[name] = rest
  end
  local kept = {}
  for _, grant in ipairs(s.granted[me] or {}) do
    if gone[grant[1]] then
      s.hr, s.ht = s.hr - 1, s.ht - grant[2]
      give_back(1, grant[2])
    else
      kept[#kept + 1] = grant
    end
  end
  s.granted[me] = kept[1] and kept or nil
end

-- ------------------------------------------------------------------ what a process tells

local function pause(micros)
  local until_ = now + math.min(micros, MAX_PAUSE)
  if until_ <= s.pause then return end
  s.pause = until_
  -- Who was let go and has not left yet waits as well, at the front of its line.
  for pid in pairs(s.granted) do
    local back = take_back(pid)
    for i = #back, 1, -1 do
      table.insert(back[i][3] == 'i' and s.qi or s.qb, 1, { pid, back[i][1], back[i][2] })
    end
  end
  if not R.limit then
    s.ramp = math.max(s.tr / math.max(math.min(W, now - 2 * W), SECOND), 0.1 / SECOND)
    s.ramp_from = until_
    know()
  end
  -- No burst gathers during a pause: one call, and then the pace.
  decay(s, until_)
  if R.rate then s.lr = math.max(s.lr, R.burst - 1) end
  if T.rate then s.lt = math.max(s.lt, T.burst / 2) end
end

local function rejected(retry_after, patient)
  local fresh, seconds = now >= s.until_, 0
  if fresh then s.strikes = s.strikes + 1 end
  if retry_after > 0 then
    seconds = math.min(retry_after, MAX_PAUSE)
  elseif fresh and (not patient or s.strikes > 2) then
    seconds = math.min(0.25 * 2 ^ math.min(s.strikes - 1, 10), 16) * SECOND
  end
  s.until_ = math.max(s.until_, now + math.max(seconds, SECOND / 8))
  if seconds <= 0 then return end
  if fresh and ask.learn then
    s.goal = s.share * 0.95
    s.share = math.max(s.share * (retry_after > 0 and 0.9 or 0.7), 0.02)
    s.fast = math.max(s.goal - s.share, 0.001) / math.min(4 * SECOND, W)
    know()
  end
  pause(seconds)
end

local function reported(kind, told)   -- limit, remaining, reset; -1: said nothing
  local name = kind == 'r' and 'nr' or 'nt'
  if told[1] > 0 and told[1] ~= s[name] then
    s[name] = told[1]
    know()
  end
  if told[2] < 0 then return end
  local limit = ceiling(kind == 'r' and ask.requests or ask.tokens, s[name])
  if limit == 0 then
    if told[2] == 0 and told[3] > 0 then pause(told[3]) end
    return
  end
  local used = kind == 'r' and s.tr + s.hr or s.tt + s.ht
  local taken = math.floor(math.max(limit - used, 0) - told[2])
  if taken <= math.max(limit * 0.01, 1) then return end
  -- Others use the key: theirs counts as spent, until it has left the window.
  if told[2] == 0 and told[3] > 0 then
    pause(told[3])
  elseif kind == 'r' then
    charge(slot, taken, 0)
  else
    charge(slot, 0, taken)
  end
end

local function settle(k, requests, tokens)
  local known = ask.epoch == s.t0 and k >= s.first
  if known then
    charge(k, requests, tokens)
  else
    requests, tokens = math.max(requests, 0), math.max(tokens, 0)
    charge(slot, requests, tokens)
  end
  s.lr = math.max(s.lr + requests, 0)
  -- Nobody owes more than one window, whatever a server reported, see TokenBucket.
  local most = T.limit and math.max(T.limit, s.lt) or math.huge
  s.lt = math.min(s.lt + tokens, most)
end

-- The state is younger than what a process remembers: the server lost it. What was spent is not
-- known, so it is taken for all that was allowed, spent evenly.
local function drain()
  s.drained = now
  local r = R.limit and math.max(math.floor(R.limit - R.burst - s.tr), 0) or 0
  local t = T.limit and math.max(math.floor(T.limit - T.burst - s.tt), 0) or 0
  for i = 1, SLOTS do
    charge(
      slot - SLOTS + i - 1,
      math.floor(r * i / SLOTS) - math.floor(r * (i - 1) / SLOTS),
      math.floor(t * i / SLOTS) - math.floor(t * (i - 1) / SLOTS)
    )
  end
  if R.rate then s.lr = math.max(s.lr, R.burst - 1) end
  if T.rate then s.lt = math.max(s.lt, T.burst / 2) end
end

-- ------------------------------------------------------------------ the turn

expire()
welcome()
know()
if ask.epoch ~= '' and ask.epoch ~= s.t0 and not s.drained then drain() end
for pid, at in pairs(s.seen) do
  if now - at > STALE and pid ~= me then leave(pid) end
end
if ask.reset or ask.leave then leave(me) end
for _, told in ipairs(ask.reported or {}) do reported(told[1], told[2]) end
for _, told in ipairs(ask.rejected or {}) do rejected(told[1], told[2]) end
if ask.forgive and now >= s.until_ then s.strikes = 0 end
for _, told in ipairs(ask.settled or {}) do settle(told[1], told[2], told[3]) end
for _, told in ipairs(ask.late or {}) do   -- spent while this server could not be asked
  local k = math.floor((now - told[1]) / grain)
  -- What was spent before drain() is in what that took for spent.
  local covered = s.drained and now - told[1] < s.drained
  if over(k) > now and not covered then charge(k, told[2], told[3]) end
end
if ask.withdrawn then withdraw(ask.withdrawn) end
serve()

local function service(tokens)
  return math.max(R.rate and 1 / R.rate or 0, T.rate and tokens / T.rate or 0)
end

-- Of what a process offers, as much stands in line as is served in `horizon`, but one at least.
local function stand(queue, offers)
  local count, pending = 0, 0
  for _, ticket in ipairs(queue) do
    if ticket[1] == me then count, pending = count + 1, pending + service(ticket[3]) end
  end
  for _, offer in ipairs(offers) do
    if count > 0 and (pending >= ask.horizon or count >= MOST_TICKETS) then return end
    table.insert(queue, { me, offer[1], offer[2] })
    serve()
    if queue[1] then
      count, pending = count + 1, pending + service(offer[2])
    end
  end
end

stand(s.qi, ask.interactive or {})
stand(s.qb, ask.batch or {})

local got, spent = {}, 0
for _, grant in ipairs(s.granted[me] or {}) do
  got[#got + 1] = whole(grant[1]) .. ':' .. whole(grant[2])
  spent = spent + grant[2]
end
if got[1] then
  -- From now on it counts as sent: until here it was held, and counted as well.
  s.granted[me] = nil
  s.hr, s.ht = s.hr - #got, s.ht - spent
  charge(slot, #got, spent)
end

local mine = {}
for _, queue in ipairs({ s.qi, s.qb }) do
  for _, ticket in ipairs(queue) do
    if ticket[1] == me then mine[#mine + 1] = whole(ticket[2]) end
  end
end
s.seen[me] = mine[1] and now or nil

-- When the window has room for so much more; asked with rising amounts.
local function window_ahead()
  local last, k, found = math.min(s.first + SLOTS / 5, slot), s.first, nil
  local out_r, out_t = 0, 0
  return function(requests, tokens)
    local lack_r = R.limit and s.tr + s.hr + requests - R.limit or 0
    local lack_t = T.limit and s.tt + s.ht + tokens - T.limit or 0
    while (lack_r > out_r or lack_t > out_t) and k <= last do
      if not found then
        local _
        _, found = amounts(s.first, last)
      end
      local i = (k - s.first) * 2 + 1
      out_r = out_r + (tonumber(found[i]) or 0)
      out_t = out_t + (tonumber(found[i + 1]) or 0)
      k = k + 1
    end
    return k > s.first and over(k - 1) or 0
  end
end

local function come_back()
  local i, b, streak, start = 1, 1, s.streak, head_due
  local level = { lr = s.lr, lt = s.lt, at = s.at }
  local free, requests, tokens = window_ahead(), 0, 0
  for _ = 1, LOOK do
    local ticket
    if s.qi[i] and (not s.qb[b] or streak < TURNS) then
      ticket, streak, i = s.qi[i], s.qb[b] and streak + 1 or 0, i + 1
    else
      ticket, streak, b = s.qb[b], 0, b + 1
    end
    if not ticket then break end
    requests, tokens = requests + 1, tokens + ticket[3]
    decay(level, math.max(due(level, ticket[3]), start, free(requests, tokens)))
    start = 0
    level.lr, level.lt = level.lr + 1, level.lt + ticket[3]
    if ticket[1] == me then break end
  end
  return math.max(level.at - now, 0)
end

local wait = mine[1] and come_back() or -1
-- ------------------------------------------------------------------ kept, and told

local lasts = whole(math.max(2 * W, 120 * SECOND) / 1000)
local registered = math.max(REGISTERED, W)
if ask.leave then
  redis.call('ZREM', PROCESSES, me)
else
  redis.call('ZADD', PROCESSES, whole(absolute), me)
end
redis.call('ZREMRANGEBYSCORE', PROCESSES, '-inf', whole(absolute - registered))
redis.call('SET', STATE, cjson.encode(s), 'PX', lasts)
redis.call('PEXPIRE', WINDOW, lasts)
redis.call('PEXPIRE', PROCESSES, lasts)

local told = {
  s.t0, whole(slot), whole(wait), whole(math.max(s.pause - now, 0)), whole(s.strikes),
  whole(s.until_ - now), whole(s.tr + s.hr), whole(s.tt + s.ht), whole(s.nr), whole(s.nt),
  whole(s.share * SECOND), whole(redis.call('ZCARD', PROCESSES)),
}
return table.concat(told, ' ') .. '|' .. table.concat(got, ' ') .. '|' .. table.concat(mine, ' ')
