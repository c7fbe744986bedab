-- KEYS nodes, the dead node's list; ARGV prefix, per_device, dead incarnation, about how many, reaping node,
-- survivor_ttl_ms ('': sessions end with their connections), session_ttl_ms.
-- Returns {'up' | 'drained', sessions left, then session, slot, owner of each that was ended here}.
local prefix, per_device, dead, node = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
if redis.call('EXISTS', prefix .. 'lease:' .. dead) == 1 then return {'up', 0} end
local answer = {redis.call('HGET', KEYS[1], dead) or 'up', 0}
local found = redis.call('HSCAN', KEYS[2], '0', 'COUNT', ARGV[4])[2]
for n = 1, #found, 2 do
  local session, record = found[n], found[n + 1]
  local slot, owner = split(record)
  redis.call('HDEL', KEYS[2], session)
  local session_key, status_key = prefix .. 'session:' .. session, prefix .. 'status:' .. slot
  local now, status = redis.call('GET', session_key), redis.call('GET', status_key)
  if now == record then
    end_record(session_key, slot, owner, ARGV[6])
    put(prefix .. 'ended:' .. session, 'reaped', ARGV[7])
  end
  -- Another record or status: a newer connection's, and the user is not offline.
  if (not now or now == record) and (not status or status == session .. '|' .. owner) then
    redis.call('DEL', status_key)
    go_offline(prefix, per_device, slot, session, node)
    for _, field in ipairs({session, slot, owner}) do answer[#answer + 1] = field end
  end
end
answer[2] = redis.call('HLEN', KEYS[2])
if answer[2] == 0 then redis.call('HDEL', KEYS[1], dead) end
return answer
