// Newer tokens over the open connection.
import assert from 'node:assert/strict'
import test from 'node:test'
import { rig, settle } from './fake.mjs'

const session = '{"oneport":"session","id":"s1","expires_in":120}'
const expires = '{"oneport":"token-expires","in":60}'

/** begun is a socket in the mode, or not: first is what its server says first. */
async function begun(first = session, token) {
  let n = 0
  const r = rig({ token: token ?? (() => `t${++n}`), options: { protocols: ['chat'], inBand: true } })
  r.got = []
  r.refreshes = []
  r.socket.on('message', (data) => r.got.push(data))
  r.socket.on('refresh', (event) => r.refreshes.push(event))
  r.socket.open()
  await settle()
  r.server.last.message(first)
  return r
}

test('a warning is answered with a newer token, and none of it reaches the application', async () => {
  const { server, socket, got, refreshes, clock } = await begun()
  assert.equal(socket.id, 's1')
  server.last.message('hello')
  server.last.message(expires)
  await settle()
  assert.deepEqual(server.last.sent, ['{"oneport":"refresh","token":"t2"}'])
  server.last.message('{"oneport":"refreshed","expires_in":3600}')
  server.last.message(expires)
  await settle()
  assert.equal(server.last.sent[1], '{"oneport":"refresh","token":"t3"}')
  server.last.message('{"oneport":"refused","reason":"not-later"}')
  assert.deepEqual(got, ['hello'])
  assert.deepEqual(refreshes, [{ ok: true, expiresIn: 3600 }, { ok: false, reason: 'not-later' }])
  assert.throws(() => socket.send('{"oneport":"refresh","token":"x"}'), TypeError)
  assert.equal(clock.timers.size, 0)
})

test('too-many and try-again-later show the same token again, three times in all', async () => {
  const { server, refreshes, clock } = await begun()
  server.last.message(expires)
  await settle()
  for (const reason of ['too-many', 'try-again-later', 'too-many']) {
    server.last.message(`{"oneport":"refused","reason":"${reason}"}`)
    await clock.advance(999)
    assert.equal(new Set(server.last.sent).size, 1)
    await clock.advance(5001)
  }
  assert.deepEqual(server.last.sent, Array(3).fill('{"oneport":"refresh","token":"t2"}'))
  assert.deepEqual(refreshes, [{ ok: false, reason: 'too-many' }])
})

test('no answer, no token, and none that is newer', async () => {
  const silent = await begun()
  silent.server.last.message(expires)
  await silent.clock.advance(10_000)
  assert.deepEqual(silent.refreshes, [{ ok: false, reason: 'no-answer' }])

  let first = true
  const without = await begun(session, () => {
    if (!first) throw new Error('away')
    first = false
    return 't'
  })
  without.server.last.message(expires)
  await without.clock.advance(20_000)
  assert.deepEqual(without.refreshes, [{ ok: false, reason: 'no-token' }])

  const same = await begun(session, () => 't')
  same.server.last.message(expires)
  await settle()
  assert.deepEqual(same.refreshes, [{ ok: false, reason: 'no-new-token' }])
  assert.deepEqual(same.server.last.sent, [])
})

test('another first message: the mode is off, and all is the application’s', async () => {
  for (const first of ['hello', expires, '{"oneport":"session"}', '{"oneport":', new ArrayBuffer(2)]) {
    const { server, socket, got } = await begun(first)
    server.last.message(session)
    server.last.message(expires)
    await settle()
    assert.deepEqual(got, [first, session, expires])
    assert.deepEqual(server.last.sent, [])
    assert.equal(socket.id, undefined)
  }
})

test('the next connection has the token that was shown last, and the next but one after it has ended', async () => {
  const { server, clock } = await begun()
  server.last.message(expires)
  await settle()
  server.last.message('{"oneport":"refreshed","expires_in":60}')
  server.last.end(1001)
  await clock.advance(1000)
  assert.deepEqual(server.last.protocols, ['chat', 'oneport.auth.v1', 'bearer', 't2'])
  server.last.message(session)
  server.last.message(expires)
  await settle()
  server.last.message('{"oneport":"refreshed","expires_in":60}')
  server.last.end(1008, 'token-expired')
  await clock.advance(2000)
  assert.deepEqual(server.last.protocols, ['chat', 'oneport.auth.v1', 'bearer', 't4'])
})

test('a connection that has ended shows nothing', async () => {
  let give
  let n = 0
  const { server, clock } = await begun(session, () => (++n === 1 ? 't1' : new Promise((resolve) => (give = resolve))))
  const first = server.last
  first.message(expires)
  await settle()
  first.end(1001)
  give('t2')
  await clock.advance(1000)
  assert.deepEqual(first.sent, [])
  assert.deepEqual(server.last.protocols.slice(-1), ['t2'])
})
