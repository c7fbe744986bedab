-- KEYS session; ARGV prefix, per_device, session_id, owner, session_ttl_ms, status_ttl_ms, refuse, node,
-- user ('': whoever it is). Returns {'ok', slot, owner before, owner that the status named}, {'unknown'},
-- {'refused'}, {'wrong_user'} or {'older', owner}: a newer connection has the records.
local prefix, session, owner = ARGV[1], ARGV[3], ARGV[4]
local record = redis.call('GET', KEYS[1])
if not record then return {'unknown'} end
local slot, before = split(record)
if ARGV[9] ~= '' and ARGV[9] ~= person(ARGV[2], slot) then return {'wrong_user'} end
if newer(before, owner) then return {'older', before} end
local status_key = prefix .. 'status:' .. slot
local status = redis.call('GET', status_key)
local displaced = ''
local online = false
if status then
  local other
  other, displaced = split(status)
  online = displaced ~= ''
  if newer(displaced, owner) then return {'older', displaced} end
  if other ~= session then
    if ARGV[7] == '1' then return {'refused'} end
    end_other_session(prefix, other, slot .. '|' .. displaced)
  end
end
if before ~= '' then let_go(prefix, session, record) end
local mine = slot .. '|' .. owner
put(KEYS[1], mine, ARGV[5])
put(status_key, session .. '|' .. owner, ARGV[6])
redis.call('HSET', held_by(prefix, owner), session, mine)
go_online(prefix, ARGV[2], slot, session, ARGV[8], ARGV[6], not online)
kick(prefix, owner, before, 'taken_over')
if displaced ~= before then kick(prefix, owner, displaced, 'taken_over') end
return {'ok', slot, before, displaced}
