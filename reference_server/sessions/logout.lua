-- KEYS session; ARGV prefix, per_device, session_id, node, user ('': whoever it is), asking incarnation, how,
-- ledger ('1': its row is still to be written), session_ttl_ms, known ('1': the ledger says that it was one).
-- Returns {slot, owner}; {} for an unknown session; {slot} for another user's, which is left alone.
local prefix, session = ARGV[1], ARGV[3]
local record = redis.call('GET', KEYS[1])
local slot, owner = split(record or '')
if record and ARGV[5] ~= '' and ARGV[5] ~= person(ARGV[2], slot) then return {slot} end
local ended = prefix .. 'ended:' .. session
-- Reaped, perhaps, or lost with all others; else anybody's invention, which leaves nothing behind.
if not record and ARGV[10] ~= '1' and redis.call('EXISTS', ended) == 0 then return {} end
-- A node that was taken for dead may have its connection, and would bring it back.
put(ended, ARGV[7], ARGV[9])
if not record then return {} end
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
