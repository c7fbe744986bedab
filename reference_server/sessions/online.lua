-- KEYS online; ARGV prefix, users. Returns for each nil: offline, or the session that has the user's records.
local answer = {}
for n = 2, #ARGV do
  local status = redis.call('ZSCORE', KEYS[1], ARGV[n]) and
    (redis.call('GET', ARGV[1] .. 'status:' .. ARGV[n]) or '')
  answer[n - 1] = status and (string.match(status, '^(.*)|') or '')
end
return answer
