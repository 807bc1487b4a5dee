// node --test: the arithmetic of the page, without a browser.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse, set } from './assets/filter.mjs'
import * as fmt from './assets/format.mjs'
import { difference, grown, percentile, perBucket, rate, Samples, Track } from './assets/rates.mjs'
import { reasonsBetween, sample, wears } from './assets/stats.mjs'

const calls = (s) => s.calls

test('a rate is what has come in a second', () => {
  assert.equal(rate({ at: 10, calls: 100 }, { at: 12, calls: 150 }, calls), 25)
  assert.equal(rate({ at: 10, calls: 100 }, { at: 12, calls: 100 }, calls), 0)
  assert.equal(rate(undefined, { at: 12, calls: 100 }, calls), null)
  assert.equal(rate({ at: 12, calls: 1 }, { at: 12, calls: 2 }, calls), null, 'no time has passed')
  assert.equal(rate({ at: 10, calls: 100 }, { at: 12, calls: 3 }, calls), null, 'the counter has begun anew')
  assert.equal(rate({ at: 10 }, { at: 12, calls: 3 }, calls), null, 'it was not there before')
  assert.equal(difference(null, 3), null)
})

test('buckets of their own are made of cumulative ones, and grow', () => {
  assert.deepEqual(perBucket([1, 4, 4, 9]), [1, 3, 0, 5])
  assert.deepEqual(perBucket([]), [])
  const h = (...counts) => ({ bounds: [1, 2], counts })
  assert.deepEqual(grown(h(1, 2, 3), h(1, 5, 4)).counts, [0, 3, 1])
  assert.equal(grown(h(1, 2, 3), h(0, 5, 4)), null, 'it has begun anew')
  assert.equal(grown(h(1, 2, 3), { bounds: [1, 3], counts: [1, 2, 3] }), null, 'other bounds')
  assert.equal(grown(undefined, h(1, 2, 3)), null)
})

test('percentiles lie on a line within their bucket', () => {
  const h = { bounds: [0.1, 0.2, 0.4], counts: [10, 10, 0, 0] }
  assert.equal(percentile(h, 0.5), 0.1)
  assert.equal(percentile(h, 0.25), 0.05)
  assert.ok(Math.abs(percentile(h, 0.75) - 0.15) < 1e-12)
  assert.equal(percentile(h, 1), 0.2)
  assert.equal(percentile({ bounds: [0.1, 0.2], counts: [0, 4, 0] }, 0.5), 0.15000000000000002)
  assert.equal(percentile({ bounds: [0.1, 0.2], counts: [0, 0, 7] }, 0.5), 0.2, 'beyond the last bound')
  assert.equal(percentile({ bounds: [0.1], counts: [0, 0] }, 0.5), null, 'nothing')
  assert.equal(percentile(null, 0.5), null)
  // 1000 calls of 1 to 1000 ms: within a bucket's width of the truth.
  const bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]
  const counts = Array.from({ length: 9 }, () => 0)
  for (let ms = 1; ms <= 1000; ms++) counts[bounds.findIndex((b) => ms / 1000 <= b)]++
  for (const q of [0.5, 0.95, 0.99]) assert.ok(Math.abs(percentile({ bounds, counts }, q) - q) < 0.01, `${q}`)
})

test('samples look back, and forget', () => {
  const s = new Samples(60)
  assert.equal(s.back(5), undefined)
  assert.equal(s.rate(5, calls), null)
  for (let at = 0; at <= 100; at++) s.add({ at, started: 'a', calls: at * 3 })
  assert.equal(s.rate(5, calls), 3)
  assert.equal(s.back(5).at, 95)
  assert.ok(s.list.length <= 62)
  assert.equal(s.back(1000).at, 40)
  s.add({ at: 101, started: 'b', calls: 1 })
  assert.equal(s.rate(5, calls), null, 'another process: nothing to compare with')
  s.add({ at: 102, started: 'b', calls: 5 })
  assert.equal(s.rate(5, calls), 4)
  s.add({ at: 50, started: 'b', calls: 5 })
  assert.equal(s.list.length, 1, 'a clock that was put back')
})

test('a histogram of few calls takes a longer time', () => {
  const s = new Samples(60)
  for (let at = 0; at <= 40; at++) s.add({ at, started: 'a', took: { bounds: [1], counts: [at, 0] } })
  const took = (x) => x.took
  assert.deepEqual(s.histogram(10, took, 5).counts, [10, 0])
  const long = s.histogram(10, took, 20)
  assert.deepEqual([long.counts, long.seconds], [[40, 0], 40])
})

test('a track keeps the newest', () => {
  const t = new Track(2, 3)
  for (let i = 0; i < 5; i++) t.add(i, i * 2, undefined)
  assert.deepEqual(t.data, [[2, 3, 4], [4, 6, 8], [null, null, null]])
})

test('what the API says is read: 64-bit numbers are texts', () => {
  const s = sample({
    at: '2026-01-02T03:04:05.500Z',
    started: '2026-01-02T00:00:00Z',
    protocols: [{ protocol: 'http', calls: '12', errors: '1', in_flight: '2', messages_in: '0', messages_out: '0', bucket_bounds: [0.1, 1], bucket_counts: ['3', '10', '12'] }],
    connections_by_state: { idle: '4' },
    refusals: [{ what: 'calls', reason: 'rate', count: '7' }],
    last_reload: { at: '2026-01-02T00:00:00Z', ok: false, text: 'no' },
  })
  assert.deepEqual(s.protocols.http.took, { bounds: [0.1, 1], counts: [3, 7, 2] })
  assert.deepEqual([s.states.idle, s.refusals[0].count, s.reload.ok], [4, 7, false])
  assert.equal(s.at % 60, 5.5)
})

test('reasons are compared, the busiest first', () => {
  const of = (s) => s.r
  const got = reasonsBetween(
    { at: 0, r: [{ what: 'calls', reason: 'a', count: 100 }] },
    { at: 10, r: [{ what: 'calls', reason: 'a', count: 110 }, { what: 'calls', reason: 'b', count: 50 }, { what: 'calls', reason: 'c', count: 0 }] },
    of,
  )
  assert.deepEqual(got.map((r) => [r.reason, r.rate]), [['b', 5], ['a', 1]])
  assert.equal(reasonsBetween(undefined, { at: 1, r: [{ what: 'x', reason: 'y', count: 1 }] }, of)[0].rate, null)
})

test('certificates wear out by their own life', () => {
  const day = 86_400
  const at = (life, left) => wears(0, life * day, (life - left) * day)
  assert.deepEqual([at(90, 60), at(90, 20), at(90, 6), at(90, -1)], ['ok', 'warn', 'bad', 'bad'])
  assert.deepEqual([at(6, 4), at(6, 1.4), at(6, 0.5)], ['ok', 'warn', 'bad'], 'short-lived')
})

test('words of a filter', () => {
  const known = { routes: new Set(['api']), upstreams: new Set(['app']) }
  const query = (text) => parse(text, known).query
  assert.deepEqual(query(''), {})
  assert.deepEqual(query('alice'), { identity: 'alice' })
  assert.deepEqual(query('alice WS idle app api 10.0.0.0/8'), { identity: 'alice', protocol: 'websocket', state: 'idle', upstream: 'app', route: 'api', remote: '10.0.0.0/8' })
  assert.deepEqual(query('user:"Ann B" remote:::1'), { identity: 'Ann B', remote: '::1' })
  assert.deepEqual(query('fd00::1'), { remote: 'fd00::1' })
  assert.deepEqual(query('user:idle'), { identity: 'idle' })
  assert.deepEqual(query('user:'), {}, 'it is being typed')
  for (const text of ['what:x', 'protocol:smtp', 'state:off', 'remote:x', 'alice bob']) assert.equal(parse(text, known).wrong.length, 1, text)
  assert.equal(parse('rest alice', known).says, 'with REST calls, of user alice')
  assert.equal(set('alice idle', 'state', 'active', known), 'alice state:active')
  assert.equal(set('alice idle', 'state', '', known), 'alice')
  assert.equal(set('', 'user', 'Ann B', known), 'user:"Ann B"')
})

test('numbers are short', () => {
  assert.deepEqual([0, 12, 9999, 12_345, 123_456, 999_990, 1_234_567].map(fmt.count), ['0', '12', '9,999', '12,345', '123k', '1.0M', '1.2M'])
  assert.deepEqual([null, 0, 0.01, 0.5, 9.94, 120.4].map(fmt.perSecond), ['–', '0', '<0.1', '0.5', '9.9', '120'])
  assert.deepEqual([null, 0.00005, 0.00042, 0.0042, 0.042, 1.26, 42, 300].map(fmt.seconds), ['–', '50 µs', '0.42 ms', '4.2 ms', '42 ms', '1.3 s', '42 s', '5m 0s'])
  assert.deepEqual([0, 1023, 1024, 1_500_000, 5e9].map(fmt.bytes), ['0 B', '1023 B', '1.0 KiB', '1.4 MiB', '4.7 GiB'])
  assert.deepEqual([3, 65, 7300, 90_061].map(fmt.age), ['3s', '1m 5s', '2h 1m', '1d 1h'])
  assert.deepEqual([0, 0.0005, 0.012, 0.5].map(fmt.percent), ['0 %', '<0.1 %', '1.2 %', '50 %'])
  assert.deepEqual([fmt.plural(1, 'call'), fmt.plural(2, 'call')], ['1 call', '2 calls'])
})
