package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/oneport-edge/oneport/router/limit"
)

const prefix = "oneport:limit:"

// gcra is limit.Limiter's algorithm, for a call, and for n-1 that have been made: a key may owe
// another burst for those. It gives 0, or in how many microseconds the call may come. Times are microseconds since 2023-11-14: few enough for a double to have 1/64 of them.
// A time that is further ahead is of another limit, or of a clock that has stepped.
const gcra = `
local interval, burst, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = (tonumber(t[1]) - 1700000000) * 1000000 + tonumber(t[2])
local tat = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
tat = math.min(math.max(tat, now), now + 2 * burst * interval)
local early = tat + (math.min(n, 1) - burst) * interval - now
if early > 0 then
  return math.ceil(early)
end
if n > 0 then
  local paid = tat + n * interval
  redis.call('SET', KEYS[1], string.format('%.3f', paid), 'PX', math.ceil((paid - now) / 1000))
end
return 0
`

// Take is that of limit.Store.
func (s *Store) Take(ctx context.Context, key string, rate limit.Rate, burst, n int) (allowed bool, retryAfter time.Duration, err error) {
	if rate.Calls <= 0 || burst <= 0 || n < 0 || n > burst+1 {
		return false, 0, errors.New("redisstore: no such rate, or more calls than a burst and one")
	}
	interval := float64(rate.Every) / float64(rate.Calls) / float64(time.Microsecond)
	args := []string{strconv.FormatFloat(interval, 'f', -1, 64), strconv.Itoa(burst), strconv.Itoa(n)}
	answer, err := s.do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return s.take.Exec(ctx, c, []string{prefix + key}, args)
	})
	if err != nil {
		return false, 0, fmt.Errorf("redisstore: %w", err)
	}
	early, err := answer.AsInt64()
	if err != nil {
		return false, 0, fmt.Errorf("redisstore: %w", err)
	}
	return early == 0, time.Duration(early) * time.Microsecond, nil
}
