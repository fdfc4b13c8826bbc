-- All charges of some requests, in one call: those of each are all taken or none. And corrections.
--
-- A bucket is what it owes: the time until it is full, of a rate, or the units used, of a quota. What is kept of it is
-- `<state>:<terms>`, and `:o` behind that if more may be owed than it holds (see `Stored`): the state in nanoseconds
-- since the Unix epoch, the terms the nanoseconds that pay for one unit of a rate, or the end of the window of a quota
-- (`w` behind that: in microseconds since the epoch).
--
-- Numbers here are doubles, exact up to 2^53. So moments are in microseconds, and what is owed is counted in ticks: in
-- nanoseconds, or in microseconds where a bucket takes longer than some weeks to fill.
--
-- KEYS: the buckets, each once.
-- ARGV: for each bucket five: nanoseconds that pay for one unit, ticks of a whole burst, ticks a microsecond (1000 or
--       1), the length of its window in microseconds (0: a rate, -1: a month), and what the first was short of that.
--       Then the requests:
--         n, s, then for n enforced charges and s shadows: the bucket's number, ticks to take
--         -1, the bucket's number, ticks to owe
--         -2, the bucket's number, ticks to come back
--         -3, the bucket's number, ticks to come back less what was refilled since, since when in microseconds
-- Answers: the time in microseconds; for each request that asks 1 (taken), 0 (refused) or -1 (a bucket holds what was
--       not written here), and of each charge what its bucket owes after it, in ticks, a shadow's as -1 - that if it
--       would have refused.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

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
local owes, at, interval, burst, ticks = {}, {}, {}, {}, {}
local windowed, owed, broken, written = {}, {}, {}, {}

-- What a bucket owes, of what is kept of it.
local function read(i, kept)
  local micros, nanos, told, kind, flag = string.match(kept, '^(%d*)(%d%d%d):(%d+)(w?)(:?o?)$')
  if not micros then
    return nil
  end
  micros = tonumber(micros) or 0
  nanos = tonumber(nanos)
  if micros < now then
    return 0
  end
  local from = at[i]
  local same = told == interval[i]
  if kind == 'w' then
    from = tonumber(told)
    if from <= now then
      return 0
    end
    same = from == at[i]
  end
  local debt
  if ticks[i] == 1000 then
    debt = (micros - from) * 1000 + nanos
  else
    debt = micros - from + (nanos > 0 and 1 or 0)
  end
  if not same then
    -- What was used stays used, whatever a unit weighs; rounded against who asks.
    if kind ~= 'w' then
      debt = math.ceil(debt / told * interval[i]) + 1
    end
    owed[i] = debt > burst[i]
  elseif flag == ':o' then
    owed[i] = debt > burst[i]
  elseif debt > burst[i] then
    -- The clock was set back.
    debt = burst[i]
  end
  return debt
end

local arg = 1
for i = 1, #KEYS do
  interval[i] = ARGV[arg]
  burst[i] = tonumber(ARGV[arg + 1])
  ticks[i] = tonumber(ARGV[arg + 2])
  local length = tonumber(ARGV[arg + 3])
  arg = arg + 5
  windowed[i] = length ~= 0
  if length == 0 then
    at[i] = now
  elseif length == -1 then
    at[i] = month_end(math.floor(now / DAY)) * DAY
  else
    local short = tonumber(ARGV[arg - 1])
    at[i] = (math.floor((now + short) / length) + 1) * length - short
  end
  local kept = redis.pcall('GET', KEYS[i])
  if not kept then
    owes[i] = 0
  else
    owes[i] = type(kept) == 'string' and read(i, kept) or nil
    broken[i] = owes[i] == nil
  end
end

local answer = {now}
local last = 1
local function tell(number)
  last = last + 1
  answer[last] = number
end

while arg <= #ARGV do
  local count = tonumber(ARGV[arg])
  if count < 0 then
    local i = tonumber(ARGV[arg + 1])
    local units = tonumber(ARGV[arg + 2])
    arg = arg + 3
    if count == -3 then
      local since = tonumber(ARGV[arg])
      arg = arg + 1
      units = math.max(0, units - (at[i] - since) * ticks[i])
    end
    if not broken[i] then
      if count == -1 then
        owes[i] = math.max(owes[i], math.min(owes[i] + units, 9007199254740991))
        owed[i] = owes[i] > burst[i]
      else
        owes[i] = math.max(0, owes[i] - units)
      end
      written[i] = true
    end
  else
    local shadows = tonumber(ARGV[arg + 1])
    local from = arg + 2
    local to = from + 2 * count - 1
    local taken = 1
    for j = from, to, 2 do
      local i = tonumber(ARGV[j])
      if broken[i] then
        taken = -1
        break
      elseif owes[i] + ARGV[j + 1] > burst[i] then
        taken = 0
      end
    end
    tell(taken)
    for j = from, to, 2 do
      local i = tonumber(ARGV[j])
      if taken == 1 then
        owes[i] = owes[i] + ARGV[j + 1]
        written[i] = true
      end
      tell(owes[i] or 0)
    end
    for j = to + 1, to + 2 * shadows, 2 do
      local i = tonumber(ARGV[j])
      if broken[i] then
        tell(0)
      elseif owes[i] + ARGV[j + 1] > burst[i] then
        tell(-1 - owes[i])
      else
        if taken == 1 then
          owes[i] = owes[i] + ARGV[j + 1]
          written[i] = true
        end
        tell(owes[i])
      end
    end
    arg = to + 1 + 2 * shadows
  end
end

for i = 1, #KEYS do
  if written[i] then
    local debt = owes[i]
    if debt <= 0 then
      redis.call('DEL', KEYS[i])
    else
      local micros, nanos
      if ticks[i] == 1000 then
        micros, nanos = at[i] + math.floor(debt / 1000), debt % 1000
      else
        micros, nanos = at[i] + debt, 0
      end
      local told = windowed[i] and string.format('%.0fw', at[i]) or interval[i]
      local kept = string.format('%.0f%03d:%s', micros, nanos, told)
      if owed[i] and debt > burst[i] then
        kept = kept .. ':o'
      end
      redis.call('SET', KEYS[i], kept, 'PX', string.format('%.0f', math.ceil((micros - now + 1) / 1000)))
    end
  end
end
return answer
