-- Walks one task's events backwards, from its last one on: each entry names the one before it.
--
-- KEYS  1 events stream, 2 task hash
-- ARGV  1 where to start ('' = the task's last event), 2 how many at most
-- Returns {entries, next}: entries newest first, as XRANGE gives them; next is the position to go
--       on from, '' at the beginning. Entries that were trimmed end the walk with next set.
local position = ARGV[1]
if position == '' then
  position = redis.call('HGET', KEYS[2], 'last') or ''
end
local entries = {}
while position ~= '' and #entries < tonumber(ARGV[2]) do
  local found = redis.call('XRANGE', KEYS[1], position, position)
  if #found == 0 then
    break
  end
  local entry = found[1]
  entries[#entries + 1] = entry
  local fields = entry[2]
  position = ''
  for i = 1, #fields, 2 do
    if fields[i] == 'prev' then
      position = fields[i + 1]
    end
  end
end
return {entries, position}
