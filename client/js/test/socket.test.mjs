// The state machine, under a server that refuses, hangs, resets, and closes with each code.
import assert from 'node:assert/strict'
import test from 'node:test'
import { GaveUpError, SilentError, TimeoutError } from '../dist/index.js'
import { Page, json, rig, settle } from './fake.mjs'

test('it connects, sends what waited, and closes', async () => {
  const { clock, server, socket, states, events } = rig()
  socket.send('early')
  socket.open().open()
  await settle()
  socket.send(new Uint8Array([1]))
  assert.deepEqual(server.last.sent, ['early', new Uint8Array([1])])
  assert.equal(server.last.url, 'wss://api.test/ws')
  socket.close(3000, 'bye')
  assert.equal(socket.state, 'closing')
  assert.throws(() => socket.send('late'), /closing/)
  await settle()
  assert.equal(states(), 'connecting connected closing disconnected')
  assert.deepEqual(server.last.closed, { code: 3000, reason: 'bye' })
  assert.equal(events.at(-1).final, true)
  assert.equal(clock.timers.size, 0)
  socket.open()
  await settle()
  assert.equal(socket.state, 'connected')
})

test('a server that does not answer the close has 5 s', async () => {
  const { clock, server, socket, states } = rig()
  server.answersClose = false
  socket.open()
  await settle()
  socket.close()
  await clock.advance(4999)
  assert.equal(socket.state, 'closing')
  await clock.advance(1)
  assert.equal(states(), 'connecting connected closing disconnected')
  assert.equal(clock.timers.size, 0)
})

test('a server that refuses: ten tries, each wait a random part of a doubling time up to 30 s', async () => {
  const { clock, server, socket, events } = rig({ steps: ['refuse'], random: () => 0.999999 })
  socket.open()
  await clock.advance(3_600_000)
  const delays = events.filter((e) => e.delay !== undefined).map((e) => Math.round(e.delay))
  assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000])
  assert.equal(server.sockets.length, 10)
  assert.equal(socket.state, 'failed')
  assert.ok(events.at(-1).error instanceof GaveUpError)
  assert.equal(events.at(-1).error.cause.code, 1006)
  assert.throws(() => socket.send('x'), /failed/)
})

test('endless is endless', async () => {
  const { clock, server, socket } = rig({ steps: ['refuse'], options: { backoff: { tries: Infinity } } })
  socket.open()
  await clock.advance(3_600_000)
  assert.ok(server.sockets.length > 200, `${server.sockets.length}`)
  assert.notEqual(socket.state, 'failed')
})

test('a server that hangs is left after 10 s, and its late answer is nobody’s', async () => {
  const { clock, server, socket, states, events } = rig({ steps: ['hang', 'open'] })
  socket.open()
  await clock.advance(9999)
  assert.equal(states(), 'connecting')
  await clock.advance(1)
  assert.equal(states(), 'connecting disconnected')
  assert.ok(events[1].error instanceof TimeoutError)
  server.sockets[0].open()
  await settle()
  assert.equal(states(), 'connecting disconnected')
  await clock.advance(500)
  assert.equal(states(), 'connecting disconnected connecting connected')
})

test('a server that resets: back after the wait; the count begins again after 10 s of health', async () => {
  const { clock, server, socket, events } = rig()
  socket.open()
  for (const [lasts, attempt] of [[0, 1], [9999, 2], [9999, 3], [10_000, 0], [0, 1]]) {
    await clock.advance(lasts)
    server.last.end(1006)
    assert.equal(events.at(-1).state, 'disconnected')
    assert.equal(events.at(-1).attempt, attempt)
    await clock.advance(events.at(-1).delay)
    assert.equal(socket.state, 'connected')
  }
})

test('each close code', async (t) => {
  const again = (code) => [1001, 1006, 1011, 1012, 1013].includes(code) || (code >= 3000 && code < 3500) || (code >= 4000 && code < 4500)
  const codes = [...Array(16).keys()].map((n) => 1000 + n).concat([1999, 2000, 2999, 3000, 3499, 3500, 3999, 4000, 4499, 4500, 4999])
  for (const code of codes) {
    await t.test(`${code}`, async () => {
      const { clock, server, socket, states } = rig()
      socket.open()
      await settle()
      server.last.end(code, 'why')
      await clock.advance(60_000)
      const closed = code === 1000 || code === 1005
      const want = again(code) ? 'disconnected connecting connected' : closed ? 'disconnected' : 'failed'
      assert.equal(states(), `connecting connected ${want}`)
      assert.equal(server.sockets.length, again(code) ? 2 : 1)
    })
  }
  await t.test('1000, if it is to come back then too', async () => {
    const { clock, server, socket, states } = rig({ options: { again: true } })
    socket.open()
    await settle()
    server.last.end(1000)
    await clock.advance(1000)
    assert.equal(states(), 'connecting connected disconnected connecting connected')
  })
  await t.test('1008 token-expired: with a newer token', async () => {
    let n = 0
    const { clock, server, socket } = rig({ token: () => `t${++n}` })
    socket.open()
    await settle()
    assert.deepEqual(server.last.protocols, ['bearer', 't1'])
    server.last.end(1008, 'token-expired')
    await clock.advance(1000)
    assert.equal(socket.state, 'connected')
    assert.deepEqual(server.last.protocols, ['bearer', 't2'])
  })
})

test('a ticket first', async (t) => {
  const ticket = json({ ticket: 'T', expires_in: 30 })
  const tokens = () => {
    let n = 0
    return () => `t${++n}`
  }
  await t.test('it is in the URL, and the token is not', async () => {
    const { server, socket } = rig({ token: tokens(), path: '/ws?room=1', options: { ticket: '/ticket', protocols: ['chat'] }, answers: [ticket] })
    socket.open()
    await settle()
    assert.equal(server.requests[0].url, 'https://api.test/ticket')
    assert.equal(server.requests[0].init.method, 'POST')
    assert.equal(server.requests[0].init.headers.authorization, 'Bearer t1')
    assert.equal(server.last.url, 'wss://api.test/ws?room=1&ticket=T')
    assert.deepEqual(server.last.protocols, ['chat'])
  })
  await t.test('401: once more with a newer token, at once', async () => {
    const { clock, server, socket, states } = rig({ token: tokens(), options: { ticket: '/ticket' }, answers: [json({}, 401), ticket] })
    socket.open()
    await clock.advance(0)
    assert.equal(states(), 'connecting disconnected connecting connected')
    assert.equal(server.requests[1].init.headers.authorization, 'Bearer t2')
  })
  await t.test('401 twice is final', async () => {
    const { clock, server, socket, events } = rig({ token: tokens(), options: { ticket: '/ticket' }, answers: [json({}, 401)] })
    socket.open()
    await clock.advance(3_600_000)
    assert.equal(socket.state, 'failed')
    assert.equal(events.at(-1).error.status, 401)
    assert.equal(server.requests.length, 2)
  })
  for (const status of [400, 403, 404, 405]) {
    await t.test(`${status} is final`, async () => {
      const { clock, server, socket, states } = rig({ options: { ticket: '/ticket' }, answers: [json({}, status)] })
      socket.open()
      await clock.advance(3_600_000)
      assert.equal(states(), 'connecting failed')
      assert.equal(server.requests.length, 1)
      assert.equal(server.sockets.length, 0)
    })
  }
  for (const [status, field, ms] of [
    [429, '7', 7500],
    [503, '120', 120_500],
    [503, '86400', 300_500], // five minutes at most
    [503, 'Tue, 14 Nov 2023 22:13:50 GMT', 30_500],
    [503, 'nonsense', 500],
    [503, '-5', 500],
    [502, undefined, 500],
    [500, undefined, 500],
  ]) {
    await t.test(`${status}, Retry-After: ${field}: back after ${ms} ms`, async () => {
      const headers = field === undefined ? {} : { 'retry-after': field }
      const { clock, socket, events } = rig({ options: { ticket: '/ticket' }, answers: [json({}, status, headers), ticket] })
      socket.open()
      await settle()
      assert.equal(events.at(-1).delay, ms)
      await clock.advance(ms - 1)
      assert.equal(socket.state, 'disconnected')
      await clock.advance(1)
      assert.equal(socket.state, 'connected')
    })
  }
  await t.test('no network, and no answer, are tried again', async () => {
    const { clock, socket, states } = rig({ options: { ticket: '/ticket' }, answers: [new TypeError('fetch failed'), 'hang', ticket] })
    socket.open()
    await clock.advance(20_000)
    assert.equal(states(), 'connecting disconnected connecting disconnected connecting connected')
  })
  await t.test('an answer without one is final', async () => {
    const { socket } = rig({ options: { ticket: '/ticket' }, answers: [json({})] })
    socket.open()
    await settle()
    assert.equal(socket.state, 'failed')
  })
})

test('close while it connects, and while it waits', async () => {
  const { clock, server, socket, states } = rig({ steps: ['hang', 'refuse', 'open'] })
  socket.open()
  await settle()
  socket.close()
  assert.equal(states(), 'connecting disconnected')
  server.sockets[0].open()
  socket.open()
  await settle()
  assert.equal(clock.timers.size, 1)
  socket.close()
  await clock.advance(60_000)
  assert.equal(states(), 'connecting disconnected connecting disconnected disconnected')
  assert.equal(server.sockets.length, 2)
  assert.equal(clock.timers.size, 0)
})

test('the queue is bounded, by messages and by bytes, and what is left is counted', async () => {
  const { server, socket, events } = rig({ steps: ['hang'], options: { queue: 3, queueBytes: 100 } })
  for (let i = 0; i < 3; i++) socket.send('x')
  assert.throws(() => socket.send('x'), RangeError)
  socket.open()
  socket.close()
  assert.equal(events.at(-1).unsent, 3)
  assert.throws(() => socket.send(new Uint8Array(101)), RangeError)
  server.steps = ['open']
  socket.open()
  await settle()
  assert.deepEqual(server.last.sent, [])
  server.last.bufferedAmount = 100
  assert.throws(() => socket.send('x'), RangeError)
})

test('the heartbeat: a ping after silence, and the end of a server that stays silent', async () => {
  const heartbeat = { every: 25_000, within: 10_000, ping: 'ping', isPong: (data) => data === 'pong' }
  const { clock, server, socket, events } = rig({ options: { heartbeat } })
  const got = []
  socket.on('message', (data) => got.push(data))
  socket.open()
  await clock.advance(20_000)
  server.last.message('hello')
  await clock.advance(24_999)
  assert.deepEqual(server.last.sent, [])
  await clock.advance(1)
  assert.deepEqual(server.last.sent, ['ping'])
  server.last.message('pong')
  await clock.advance(34_999)
  assert.equal(socket.state, 'connected')
  await clock.advance(1)
  assert.equal(socket.state, 'disconnected')
  assert.ok(events.at(-1).error instanceof SilentError)
  assert.deepEqual(got, ['hello'])
  await clock.advance(1000)
  assert.equal(socket.state, 'connected')
})

test('a heartbeat without a ping, and a page that was frozen', async () => {
  const { clock, server, socket } = rig({ options: { heartbeat: { every: 30_000, within: 5000 } } })
  socket.open()
  await clock.advance(30_000)
  await clock.sleep(600_000)
  assert.equal(socket.state, 'connected') // its messages may be about to come
  server.last.message('x')
  await clock.advance(34_999)
  assert.equal(socket.state, 'connected')
  await clock.advance(1)
  assert.equal(socket.state, 'disconnected')
  assert.deepEqual(server.sockets[0].sent, [])
})

test('onConnect speaks first, and its error is tried again', async () => {
  let n = 0
  const onConnect = async (send) => {
    send(`subscribe ${++n}`)
    if (n === 1) throw new Error('no')
  }
  const { clock, server, socket, states } = rig({ options: { onConnect } })
  socket.send('queued')
  socket.open()
  await clock.advance(1000)
  assert.equal(states(), 'connecting disconnected connecting connected')
  assert.deepEqual(server.last.sent, ['subscribe 2', 'queued'])
})

test('the network is back: sooner, at random, once, and not before Retry-After', async () => {
  const page = new Page()
  let drawn = 0.5
  const { clock, server, socket } = rig({ steps: ['refuse', 'refuse', 'refuse', 'refuse', 'open'], page, random: () => drawn })
  socket.open()
  await clock.advance(500 + 1000 + 2000) // the fourth wait is of 4 s
  assert.equal(server.sockets.length, 4)
  page.fire('online')
  drawn = 0.1
  page.fire('online') // a network that comes and goes does not draw until it wins
  await clock.advance(499)
  assert.equal(server.sockets.length, 4)
  await clock.advance(1)
  assert.equal(socket.state, 'connected')

  const busy = rig({ page, options: { ticket: '/ticket' }, answers: [json({}, 503, { 'retry-after': '60' }), json({ ticket: 'T' })] })
  busy.socket.open()
  await settle()
  page.visibilityState = 'hidden'
  page.fire('visibilitychange')
  page.visibilityState = 'visible'
  page.fire('visibilitychange')
  await busy.clock.advance(60_499)
  assert.equal(busy.server.requests.length, 1)
  await busy.clock.advance(1)
  assert.equal(busy.socket.state, 'connected')
})

test('no token is final; a source that hangs or throws is tried again', async () => {
  for (const [token, want] of [
    [() => undefined, 'connecting failed'],
    [() => Promise.reject(new Error('away')), 'connecting disconnected'],
    [() => new Promise(() => undefined), 'connecting'],
  ]) {
    const { socket, states, clock } = rig({ token })
    socket.open()
    await settle()
    assert.equal(states(), want)
    await clock.advance(10_000)
    assert.notEqual(states(), 'connecting')
  }
})

test('what a listener throws is nobody else’s trouble, and uncaught', async (t) => {
  const { socket, states } = rig()
  const uncaught = []
  const later = globalThis.queueMicrotask
  t.mock.method(globalThis, 'queueMicrotask', (f) =>
    later(() => {
      try {
        f()
      } catch (err) {
        uncaught.push(err.message)
      }
    }),
  )
  const off = socket.on('state', () => {
    throw new Error('mine')
  })
  socket.open()
  off()
  await settle()
  assert.deepEqual(uncaught, ['mine'])
  assert.equal(states(), 'connecting connected')
})
