-- KEYS session; ARGV prefix, per_device, session_id, node, user ('': whoever it is), asking incarnation, how,
-- ledger ('1': its row is still to be written).
-- Returns {slot, owner}; {} for an unknown session; {slot} for another user's, which is left alone.
local prefix, session = ARGV[1], ARGV[3]
local record = redis.call('GET', KEYS[1])
if not record then return {} end
local slot, owner = split(record)
if ARGV[5] ~= '' and ARGV[5] ~= person(ARGV[2], slot) then return {slot} end
redis.call('DEL', KEYS[1])
if ARGV[8] == '1' then redis.call('HSET', prefix .. 'over', session, (person(ARGV[2], slot))) end
if owner ~= '' then let_go(prefix, session, record) end
local status_key = prefix .. 'status:' .. slot
local status = redis.call('GET', status_key)
if status and split(status) == session then
  redis.call('DEL', status_key)
  go_offline(prefix, ARGV[2], slot, session, ARGV[4])
end
kick(prefix, ARGV[6] .. ':0', owner, ARGV[7])
return {slot, owner}
