-- KEYS session; ARGV prefix, per_device, session_id, owner, slot ('': as the record says), node, survivor_ttl_ms
-- ('': the session ends with its connection). Returns 1 when the connection was the slot's last word, 0 when a newer one has the records or there were none.
local prefix, session, owner, slot = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local record = redis.call('GET', KEYS[1])
if record then
  local of, by = split(record)
  if by ~= owner then return 0 end
  slot = of
  end_record(KEYS[1], slot, owner, ARGV[7])
end
if slot == '' then return 0 end
local held = let_go(prefix, session, slot .. '|' .. owner)
local status_key = prefix .. 'status:' .. slot
local status = redis.call('GET', status_key)
if status and status ~= session .. '|' .. owner then return 0 end
-- No status of anybody: it expired, or the store was flushed; those who watch still have to be told. But if
-- nothing was lost, whoever ended the session has told them.
if not record and not status and not held and lost_nothing(prefix, owner) then return 0 end
redis.call('DEL', status_key)
go_offline(prefix, ARGV[2], slot, session, ARGV[6])
return 1
