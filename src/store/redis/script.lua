-- All charges of some requests, in one call: those of each are all taken or none. And corrections.
--
-- A bucket is what it owes: the time until it is full, of a rate, or the units used, of a quota. What is kept of it is
-- `<state>:<terms>`, and `:o` behind that if more may be owed than it holds (see `Stored`): the state in nanoseconds
-- since the Unix epoch, in nineteen digits; the terms the nanoseconds that pay for one unit of a rate, or the end of
-- the window of a quota (`w` behind that: in microseconds since the epoch).
--
-- Numbers here are doubles, exact up to 2^53. So moments are in microseconds, and what is owed is counted in ticks: in
-- nanoseconds, or in microseconds where a bucket takes longer than some weeks to fill.
--
-- KEYS: the buckets, each once.
--
-- Of plain requests, whose charges are all enforced and all of rates in nanoseconds, no more is told than is needed:
-- ARGV[1]: packed, for each bucket the ticks of a whole burst; then for each request how many charges it has, and of
--       each the number of its bucket and the ticks to take
-- ARGV[2] and so on: for each bucket what its value ends with if it is kept in its own terms: `:<terms>`
-- Answers: as below, or -1 if there is a bucket of which more has to be known. Then nothing was done.
--
-- Of all others:
-- ARGV[1]: two arrays in MessagePack. The first has five for each bucket: nanoseconds that pay for one unit (as a text),
--       ticks of a whole burst, ticks a microsecond (1000 or 1), the length of its window in microseconds (0: a rate,
--       -1: a month), and what the first was short of that. The second has the requests:
--         n, s, then for n enforced charges and s shadows: the bucket's number, ticks to take
--         -1, the bucket's number, ticks to owe
--         -2, the bucket's number, ticks to come back
--         -3, the bucket's number, ticks to come back less what was refilled since, since when in microseconds: not to
--       a bucket that is kept in other terms
--         -4, the bucket's number, ticks of a unit, how many units are leased at most if the request before was taken
--         -5, the bucket's number, ticks to come back of a lease, what it has left in microseconds, and nanoseconds
--       behind that: not to a bucket that is kept in other terms
-- Answers: the time in microseconds; for each request that asks 1 (taken), 0 (refused) or -1 (a bucket holds what was
--       not written here), and of each charge what its bucket owes after it, in ticks, a shadow's as -1 - that if it
--       would have refused; for each lease how many units were taken, and what its bucket owes after it.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local floor, sub, format = math.floor, string.sub, string.format

if ARGV[2] then
  local call, read, packed = redis.call, struct.unpack, ARGV[1]
  local all = call('MGET', unpack(KEYS))
  -- Tables that are made with room for some are made at once, and those that grow are made three times.
  local owes, burst, written, missing = {0, 0, 0, 0}, {0, 0, 0, 0}, {false, false, false, false}, nil
  local place = 1
  for i = 1, #KEYS do
    burst[i], place = read('>d', packed, place)
    local kept = all[i]
    if not kept then
      owes[i] = 0
      missing = missing or {}
      missing[#missing + 1] = KEYS[i]
    elseif sub(kept, 20) == ARGV[i + 1] then
      local debt, nanos = (sub(kept, 1, 16) - now) * 1000, sub(kept, 17, 19)
      if nanos ~= '000' then
        debt = debt + nanos
      end
      owes[i] = debt <= 0 and 0 or debt <= burst[i] and debt or burst[i]
    else
      return {-1}
    end
  end
  -- What is of another type is missing, too.
  if missing and call('EXISTS', unpack(missing)) > 0 then
    return {-1}
  end
  local answer, last = {now, 0, 0, 0, 0, 0}, 1
  local stop, ids, next = #packed, {0, 0, 0, 0}, {0, 0, 0, 0}
  while place <= stop do
    local count, taken, i, ticks = 0, 1, 0, 0
    count, place = read('B', packed, place)
    for j = 1, count do
      i, ticks, place = read('>Hd', packed, place)
      ticks = owes[i] + ticks
      if ticks > burst[i] then
        taken = 0
      end
      ids[j], next[j] = i, ticks
    end
    last = last + 1
    answer[last] = taken
    for j = 1, count do
      i = ids[j]
      -- What costs nothing is not written: more may be owed than is read here.
      if taken == 1 and next[j] > owes[i] then
        owes[i], written[i] = next[j], true
      end
      last = last + 1
      answer[last] = owes[i]
    end
  end
  -- There it ends.
  answer[last + 1] = nil
  for i = 1, #KEYS do
    local debt = owes[i]
    if written[i] and debt > 0 then
      -- Whole numbers are written much faster as such, and most are of whole microseconds.
      local nanos = debt % 1000
      local value = now + (debt - nanos) / 1000
      value = nanos == 0 and format('%016d000', value) or format('%016d%03d', value, nanos)
      call('SET', KEYS[i], value .. ARGV[i + 1], 'PX', format('%d', floor(debt / 1000000) + 1))
    end
  end
  return answer
end

local buckets, asked = cmsgpack.unpack(ARGV[1])

-- The end of the month of a day, both counted from the epoch. Years here begin with March, in eras of 400 years.
local function month_end(day)
  local floor = math.floor
  day = day + 719468
  local era = floor(day / 146097)
  day = day - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  local first = year * 365 + floor(year / 4) - floor(year / 100)
  local month = floor((5 * (day - first) + 2) / 153)
  local last = first + floor((153 * (month + 1) + 2) / 5)
  if month == 11 then
    year = year + 1
    last = year * 365 + floor(year / 4) - floor(year / 100) + floor(year / 400)
  end
  return era * 146097 + last - 719468
end

local DAY = 86400000000
-- The most that is owed: so that the moment at which it is paid has sixteen digits.
local FARTHEST = 5000000000000000
-- Of most buckets the own time is that of the server, and a tick is a nanosecond: `at` and `ticks` have those of others.
-- Of some that seem to owe more than they hold `over` has how much: it is another's who holds more, or a clock was set
-- back. Charges are refused either way, and corrections begin there.
local owes, at, burst, ticks, owed, broken, written, over = {}, {}, {}, {}, {}, {}, {}, {}
-- Buckets of which something is owed that is kept in other terms.
local foreign = {}

-- Takes from a bucket what was found to fit. What costs nothing is written only in terms that are new to the bucket: in
-- the same, more may be owed than is read here.
local function charge(i, cost)
  if cost > 0 or foreign[i] then
    owes[i], written[i], foreign[i] = owes[i] + cost, true, nil
  end
  return owes[i]
end

-- What a bucket owes, of what was kept of it in other terms, or of more than it holds.
local function reread(i, kept, interval)
  local micros, nanos, told, kind, flag = string.match(kept, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d)(%d%d%d):(%d+)(w?)(:?o?)$')
  if not micros or tonumber(told) == 0 then
    return nil
  end
  micros, nanos = tonumber(micros), tonumber(nanos)
  if micros < now then
    return 0
  end
  local from = at[i] or now
  local same = told == interval
  if kind == 'w' then
    from = tonumber(told)
    if from <= now then
      return 0
    end
    same = from == (at[i] or now)
  end
  local debt
  if not ticks[i] then
    debt = (micros - from) * 1000 + nanos
  else
    debt = micros - from + (nanos > 0 and 1 or 0)
  end
  if not same then
    -- What was used stays used, whatever a unit weighs; rounded against who asks.
    if kind ~= 'w' then
      debt = math.min(math.ceil(debt / told * interval) + 1, FARTHEST)
    end
    foreign[i] = debt > 0
    owed[i] = debt > burst[i]
  elseif flag == ':o' then
    owed[i] = debt > burst[i]
  elseif debt > burst[i] then
    over[i] = math.min(debt, FARTHEST)
    debt = burst[i]
  end
  return math.min(debt, FARTHEST)
end

local all = redis.call('MGET', unpack(KEYS))
local missing = {}
for i = 1, #KEYS do
  local b = 5 * i
  burst[i] = buckets[b - 3]
  if buckets[b - 2] ~= 1000 then
    ticks[i] = buckets[b - 2]
  end
  local length = buckets[b - 1]
  if length == -1 then
    at[i] = month_end(floor(now / DAY)) * DAY
  elseif length ~= 0 then
    at[i] = (floor((now + buckets[b]) / length) + 1) * length - buckets[b]
  end
  local kept = all[i]
  if not kept then
    missing[#missing + 1] = KEYS[i]
    owes[i] = 0
  elseif length == 0 and not ticks[i] and sub(kept, 20) == ':' .. buckets[b - 4] then
    -- As most are.
    local debt = (sub(kept, 1, 16) - now) * 1000 + sub(kept, 17, 19)
    owes[i] = debt <= 0 and 0 or debt
    if debt > burst[i] then
      owes[i], over[i] = burst[i], math.min(debt, FARTHEST)
    end
  else
    owes[i] = reread(i, kept, buckets[b - 4])
    broken[i] = owes[i] == nil
  end
end
-- What is of another type is missing, too.
if #missing > 0 and redis.call('EXISTS', unpack(missing)) > 0 then
  for i = 1, #KEYS do
    if not all[i] and redis.call('EXISTS', KEYS[i]) == 1 then
      broken[i], owes[i] = true, nil
    end
  end
end

local answer = {now}
local last, taken = 1, 0
local arg, stop = 1, #asked
while arg <= stop do
  local count = asked[arg]
  if count == -4 then
    local i, unit, units = asked[arg + 1], asked[arg + 2], 0
    if taken == 1 then
      -- No more than half of what is left, so that others find something, too.
      units = math.max(0, math.min(asked[arg + 3], floor(floor((burst[i] - owes[i]) / unit) / 2)))
      charge(i, units * unit)
    end
    answer[last + 1], answer[last + 2] = units, owes[i] or 0
    last = last + 2
    arg = arg + 4
  elseif count == -5 then
    local i = asked[arg + 1]
    local left = asked[arg + 3] - (at[i] or now)
    if not ticks[i] then
      left = left * 1000 + asked[arg + 4]
    end
    -- Of a rate, only if nobody came since.
    local debt = over[i] or owes[i]
    if not broken[i] and not foreign[i] and left > 0 and (buckets[5 * i - 1] ~= 0 or left == debt) then
      owes[i] = math.max(0, debt - asked[arg + 2])
      owed[i], over[i], written[i] = owes[i] > burst[i], nil, true
    end
    arg = arg + 5
  elseif count < 0 then
    local i, units = asked[arg + 1], asked[arg + 2]
    local stays = broken[i]
    arg = arg + 3
    if count == -3 then
      -- A clock that was set back has refilled nothing.
      units = math.max(0, units - math.max(0, (at[i] or now) - asked[arg]) * (ticks[i] or 1000))
      arg = arg + 1
      stays = stays or foreign[i]
    end
    if not stays then
      local debt = over[i] or owes[i]
      if count == -1 then
        owes[i] = math.max(debt, math.min(debt + units, FARTHEST))
      else
        owes[i] = math.max(0, debt - units)
      end
      owed[i], over[i], written[i], foreign[i] = owes[i] > burst[i], nil, true, nil
    end
  else
    local from = arg + 2
    local to = from + 2 * count - 1
    local stop = to + 2 * asked[arg + 1]
    taken = 1
    for j = from, to, 2 do
      local i = asked[j]
      if broken[i] then
        taken = -1
        break
      elseif asked[j + 1] > 0 and owes[i] + asked[j + 1] > burst[i] then
        taken = 0
      end
    end
    last = last + 1
    answer[last] = taken
    for j = from, to, 2 do
      local i = asked[j]
      last = last + 1
      answer[last] = taken == 1 and charge(i, asked[j + 1]) or owes[i] or 0
    end
    for j = to + 1, stop, 2 do
      local i = asked[j]
      local debt = owes[i] or 0
      last = last + 1
      if broken[i] then
        answer[last] = 0
      elseif asked[j + 1] > 0 and debt + asked[j + 1] > burst[i] then
        answer[last] = -1 - debt
      else
        answer[last] = taken == 1 and charge(i, asked[j + 1]) or debt
      end
    end
    arg = stop + 1
  end
end

for i = 1, #KEYS do
  if written[i] then
    local debt = owes[i]
    if debt <= 0 then
      redis.call('DEL', KEYS[i])
    else
      local from = at[i] or now
      local micros, nanos = from + debt, 0
      if not ticks[i] then
        micros, nanos = from + floor(debt / 1000), debt % 1000
      end
      local told = at[i] and format('%dw', from) or buckets[5 * i - 4]
      if owed[i] and debt > burst[i] then
        told = told .. ':o'
      end
      local lasts = format('%d', floor((micros - now) / 1000) + 1)
      redis.call('SET', KEYS[i], format('%016d%03d:', micros, nanos) .. told, 'PX', lasts)
    end
  end
end
return answer
