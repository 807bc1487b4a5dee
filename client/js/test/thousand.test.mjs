// A thousand clients that lose their server at once return spread over the
// window, not in a wave.
import assert from 'node:assert/strict'
import test from 'node:test'
import { Client } from '../dist/index.js'
import { Clock, Server, json, settle } from './fake.mjs'

/** seeded is mulberry32: the same numbers each time. */
const seeded = (a) => () => {
  a = (a + 0x6d2b79f5) | 0
  let t = Math.imul(a ^ (a >>> 15), 1 | a)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

function thousand(server, options = {}) {
  const clock = new Clock()
  const dials = []
  const { WebSocket } = server.env
  class Noted extends WebSocket {
    constructor(...args) {
      super(...args)
      dials.push(clock.time)
    }
  }
  const client = new Client({ url: 'https://api.test', env: { ...clock.env, ...server.env, WebSocket: Noted, random: seeded(1), window: undefined, document: undefined } })
  const sockets = Array.from({ length: 1000 }, () => client.socket('/ws', options).open())
  return { clock, dials, sockets }
}

/** slices counts times by slices of ms from a beginning. */
function slices(times, begin, ms, n) {
  const counts = Array(n).fill(0)
  for (const time of times) {
    const i = Math.floor((time - begin) / ms)
    assert.ok(i >= 0 && i < n, `${time - begin} ms is outside of the window`)
    counts[i]++
  }
  return counts
}

// Of 1,000 in 10 slices, 100 are expected in each with a deviation of 9.5: five of them
// are allowed for.
const even = (counts) => counts.every((n) => n > 50 && n < 150)

for (const [code, reason] of [[1001, 'going away'], [1006, ''], [1012, 'restart'], [1013, 'overloaded']]) {
  test(`thrown off with ${code}`, async () => {
    const server = new Server()
    const { clock, dials, sockets } = thousand(server)
    await settle()
    assert.equal(dials.length, 1000)
    const begin = clock.time
    dials.length = 0
    for (const socket of [...server.sockets]) socket.end(code, reason)
    await clock.advance(1000)
    const counts = slices(dials, begin, 100, 10)
    assert.ok(even(counts), `${counts}`)
    assert.ok(sockets.every((s) => s.state === 'connected'))
  })
}

test('a server that is away for a minute: the fifth wait is spread over 16 s', async () => {
  const server = new Server()
  const { clock, dials, sockets } = thousand(server, { backoff: { tries: Infinity } })
  await settle()
  server.steps = ['refuse']
  for (const socket of [...server.sockets]) socket.end(1006)
  await clock.advance(60_000)
  const begin = clock.time
  dials.length = 0
  server.steps = ['open']
  await clock.advance(30_000)
  assert.ok(sockets.every((s) => s.state === 'connected'))
  const counts = slices(dials, begin, 1000, 30)
  const most = Math.max(...counts)
  assert.ok(most < 150, `${counts}`) // of 1,000 that wait up to 16 or 30 s
})

test('a Retry-After that is the same for all is spread as well', async () => {
  const answers = [json({}, 503, { 'retry-after': '10' })]
  const server = new Server(['open'], answers)
  const { clock, dials, sockets } = thousand(server, { ticket: '/ticket' })
  const begin = clock.time
  await settle()
  server.answers = [json({ ticket: 'T' })]
  await clock.advance(11_000)
  const counts = slices(dials, begin + 10_000, 100, 10)
  assert.ok(even(counts), `${counts}`)
  assert.ok(sockets.every((s) => s.state === 'connected'))
})
