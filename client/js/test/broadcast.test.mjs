// Channels: each publication once, in order, over lost connections.
import assert from 'node:assert/strict'
import test from 'node:test'
import { FinalError } from '../dist/index.js'
import { rig, settle } from './fake.mjs'

async function subscribed(channels, options) {
  const r = rig()
  r.sub = r.client.subscribe(channels, options)
  r.got = []
  r.subscribed = []
  r.sub.on('publication', ({ channel, offset, data }) => r.got.push([channel, offset, data]))
  r.sub.on('subscribed', (event) => r.subscribed.push(event))
  r.states = []
  r.sub.on('state', (event) => r.states.push(event))
  r.sub.open()
  await settle()
  r.say = (message) => r.server.last.message(JSON.stringify(message))
  r.since = () => new URL(r.server.last.url).searchParams.get('since')
  r.back = async () => {
    r.server.last.end(1006)
    await r.clock.advance(30_000)
  }
  return r
}

test('it comes back with its position, and hands over nothing twice', async () => {
  const r = await subscribed('news:today')
  assert.equal(r.server.last.url, 'wss://api.test/broadcast/stream?channel=news%3Atoday')
  r.say({ channel: 'news:today', subscribed: { offset: 41, epoch: 'xyz' } })
  r.say({ channel: 'news:today', offset: 42, data: 'a' })
  await r.back()
  assert.equal(r.since(), '42:xyz')
  r.say({ channel: 'news:today', subscribed: { offset: 41, epoch: 'xyz', recovered: true } })
  for (const [offset, data] of [[42, 'a'], [43, 'b'], [43, 'b'], [44, null]]) r.say({ channel: 'news:today', offset, data })
  assert.deepEqual(r.got, [['news:today', 42, 'a'], ['news:today', 43, 'b'], ['news:today', 44, null]])
  assert.deepEqual(r.subscribed.map((e) => [e.recovered, e.lost]), [[false, false], [true, false]])
  assert.deepEqual(r.sub.positions, { 'news:today': { offset: 44, epoch: 'xyz' } })
})

test('it says when recovery was impossible, and goes on from where the server is', async () => {
  const r = await subscribed('news:today', { since: { 'news:today': { offset: 7, epoch: 'old' } } })
  assert.equal(r.since(), '7:old')
  r.say({ channel: 'news:today', subscribed: { offset: 0, epoch: 'new' } })
  r.say({ channel: 'news:today', offset: 1, data: 1 })
  assert.deepEqual(r.subscribed, [{ channel: 'news:today', position: { offset: 0, epoch: 'new' }, recovered: false, lost: true }])
  await r.back()
  assert.equal(r.since(), '1:new')
  r.say({ channel: 'news:today', subscribed: { offset: 500, epoch: 'new' } })
  r.say({ channel: 'news:today', offset: 501, data: 2 })
  assert.deepEqual(r.got, [['news:today', 1, 1], ['news:today', 501, 2]])
  assert.equal(r.subscribed.at(-1).lost, true)
})

test('several channels, one without a history', async () => {
  const r = await subscribed(['plain', 'log:a'])
  assert.equal(r.since(), null)
  r.say({ channel: 'plain', subscribed: {} })
  r.say({ channel: 'log:a', subscribed: { offset: 3, epoch: 'e' } })
  r.say({ channel: 'plain', data: 1 })
  r.say({ channel: 'plain', data: 1 })
  r.say({ channel: 'log:a', join: { user: 'alice' } })
  await r.back()
  assert.equal(r.since(), ',3:e')
  r.say({ channel: 'plain', subscribed: {} })
  assert.deepEqual(r.got, [['plain', 0, 1], ['plain', 0, 1]])
  assert.deepEqual([r.subscribed.at(-1).channel, r.subscribed.at(-1).lost], ['plain', true])
})

test('what is no stream of these channels ends it', async () => {
  for (const message of ['hello', '{"channel":"other","data":1}', new ArrayBuffer(1), 'null', '[]']) {
    const r = await subscribed('news:today')
    r.server.last.message(message)
    assert.ok(r.states.at(-1).error instanceof FinalError)
    await r.clock.advance(60_000)
    assert.equal(r.server.sockets.length, 1)
    assert.equal(r.sub.socket.state, 'failed')
  }
})

test('1 to 16 channels, each once', () => {
  const { client } = rig()
  for (const channels of [[], ['a', 'a'], Array.from({ length: 17 }, (_, i) => `${i}`)]) {
    assert.throws(() => client.subscribe(channels), RangeError)
  }
})
