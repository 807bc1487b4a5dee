// The broadcast's subscribers: centrifuge's own client, as npm has it, in node and in
// Chromium, and clients that know nothing of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'
import WebSocket from 'ws'
import { Centrifuge } from 'centrifuge'
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf'
import { addr, ca, name, plain, spki, step } from './port.mjs'

const { ONEPORT_EDITOR: editor, ONEPORT_BRIEF: brief, ONEPORT_PUBLISHER: publisher } = process.env

// Sockets trust the test's CA, and the last one opened can be cut off.
let last
class Socket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols ?? [], { ca })
    last = this
  }
}

function client(Client = Centrifuge, token) {
  return new Client(`wss://${name}/connection/${token ? `known?token=${token}` : 'websocket'}`, {
    websocket: Socket,
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
  })
}

async function publish(channel, data) {
  const response = await fetch(`http://${plain}/broadcast/publish`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${publisher}` },
    body: JSON.stringify({ channel, data }),
  })
  assert.equal(response.status, 200, await response.text())
}

// event gives the next event of a name.
const event = (from, name) => new Promise((resolve) => from.once(name, resolve))

// collect gives n publications.
function collect(sub, n) {
  const got = []
  return new Promise((resolve) => {
    sub.on('publication', (ctx) => {
      got.push(ctx.data)
      if (got.length === n) resolve(got)
    })
  })
}

async function subscribed(c, channel, options) {
  const sub = c.newSubscription(channel, options)
  const ready = event(sub, 'subscribed')
  sub.subscribe()
  c.connect()
  return { sub, context: await ready }
}

for (const [protocol, Client] of [['JSON', Centrifuge], ['protocol buffers', ProtobufCentrifuge]]) {
  await step(`centrifuge, ${protocol}: what is published arrives, in order`, async () => {
    const c = client(Client)
    const { sub } = await subscribed(c, 'news:today')
    const all = collect(sub, 20)
    for (let n = 0; n < 20; n++) await publish('news:today', { n })
    // What is published in protocol buffers is bytes there.
    const read = (data) => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data)
    assert.deepEqual((await all).map(read), Array.from({ length: 20 }, (_, n) => ({ n })))
    c.disconnect()
  })
}

await step('centrifuge: who was away gets what has been missed, once and in order', async () => {
  const c = client()
  const { sub } = await subscribed(c, 'news:away')
  const all = collect(sub, 4)
  await publish('news:away', 1)
  const away = event(c, 'connecting')
  last.terminate()
  await away
  await publish('news:away', 2)
  await publish('news:away', 3)
  const back = event(sub, 'subscribed')
  assert.equal((await back).recovered, true)
  await publish('news:away', 4)
  assert.deepEqual(await all, [1, 2, 3, 4])
  c.disconnect()
})

await step('centrifuge: publish, presence, history, join and leave', async () => {
  const reader = client()
  const { sub } = await subscribed(reader, 'news:desk')
  // eve waits for her to come or go: a client hears of itself, too.
  const eve = (name) => new Promise((resolve) => sub.on(name, ({ info }) => info.user === 'eve' && resolve()))
  const joined = eve('join')
  const writer = client(Centrifuge, editor)
  const desk = await subscribed(writer, 'news:desk')
  await joined
  const one = collect(sub, 1)
  await desk.sub.publish({ hello: 'world' })
  assert.deepEqual(await one, [{ hello: 'world' }])
  const { clients } = await sub.presence()
  assert.deepEqual(Object.values(clients).map((c) => c.user).sort(), ['', 'eve'])
  assert.equal((await sub.presenceStats()).numClients, 2)
  const { publications } = await sub.history({ limit: 10 })
  assert.deepEqual(publications.at(-1).data, { hello: 'world' })
  assert.equal(publications.at(-1).info.user, 'eve')
  const left = eve('leave')
  writer.disconnect()
  await left
  await assert.rejects(sub.publish({ not: 'mine' }), { code: 103 })
  reader.disconnect()
})

await step('centrifuge: channels that are unknown, forbidden, or too many', async () => {
  const c = client()
  c.connect()
  for (const [channel, code] of [['sport:today', 102], ['staff:room', 103]]) {
    const sub = c.newSubscription(channel)
    const end = event(sub, 'unsubscribed')
    sub.subscribe()
    assert.equal((await end).code, code)
  }
  const subs = Array.from({ length: 200 }, (_, i) => c.newSubscription(`news:${i}`))
  const ends = subs.map((sub) => Promise.race([event(sub, 'subscribed').then(() => 0), event(sub, 'unsubscribed').then((ctx) => ctx.code)]))
  for (const sub of subs) sub.subscribe()
  const codes = await Promise.all(ends)
  assert.equal(codes.filter((code) => code === 0).length, 128)
  assert.equal(codes.filter((code) => code === 106).length, 72)
  c.disconnect()
})

await step('centrifuge: a session ends with its token', async () => {
  const c = client(Centrifuge, brief)
  const connected = event(c, 'connected')
  c.connect()
  await connected
  const [code, reason] = await once(last, 'close')
  assert.equal(code, 1008)
  assert.equal(`${reason}`, 'token-expired')
  c.disconnect()
})

await step('ws: one way, and from a position', async () => {
  const open = (query) => new WebSocket(`wss://${name}/broadcast/stream?channel=log:plain${query}`, { ca })
  const next = async (socket) => JSON.parse((await once(socket, 'message'))[0])
  const socket = open('')
  const { subscribed: at } = await next(socket)
  const message = next(socket)
  await publish('log:plain', { a: 1 })
  assert.deepEqual(await message, { channel: 'log:plain', offset: at.offset + 1, data: { a: 1 } })
  socket.send('?')
  assert.equal((await once(socket, 'close'))[0], 1008)

  const again = open(`&since=${at.offset}:${at.epoch}`)
  const got = []
  again.on('message', (data) => got.push(JSON.parse(data)))
  while (got.length < 2) await once(again, 'message')
  assert.equal(got[0].subscribed.recovered, true)
  assert.deepEqual(got[1].data, { a: 1 })
  again.close()
})

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  timeout: 30_000,
  args: [
    '--no-sandbox', // root has none
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-proxy-server',
    `--ignore-certificate-errors-spki-list=${spki}`,
  ],
})
const page = await browser.newPage()
page.setDefaultTimeout(10_000)
await page.goto(`https://${addr}/`) // a 404 is a page as well
const dist = createRequire(import.meta.url).resolve('centrifuge').replace(/build.*/, 'dist/')

for (const file of ['centrifuge.js', 'centrifuge.protobuf.js']) {
  await step(`Chromium, ${file}: what is published arrives`, async () => {
    await page.addScriptTag({ path: dist + file })
    const protobuf = file.includes('protobuf')
    const got = page.evaluate(
      (protobuf) =>
        new Promise((resolve) => {
          const c = new Centrifuge(`wss://${location.host}/connection/websocket`, protobuf ? { protocol: 'protobuf' } : {})
          const sub = c.newSubscription('news:browser')
          const got = []
          sub.on('subscribed', () => (window.ready = true))
          sub.on('publication', ({ data }) => {
            got.push(data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data)
            if (got.length < 3) return
            c.disconnect()
            resolve(got)
          })
          sub.subscribe()
          c.connect()
        }),
      protobuf,
    )
    await page.waitForFunction(() => window.ready)
    for (const n of [1, 2, 3]) await publish('news:browser', { n })
    assert.deepEqual(await got, [{ n: 1 }, { n: 2 }, { n: 3 }])
    await page.evaluate(() => delete window.ready)
  })
}

await step('Chromium, EventSource: what is published arrives, with its position', async () => {
  const got = page.evaluate(
    () =>
      new Promise((resolve) => {
        const source = new EventSource('/broadcast/stream?channel=news:events')
        const got = []
        source.addEventListener('subscribed', () => (window.ready = true))
        source.onmessage = ({ data, lastEventId }) => {
          got.push([JSON.parse(data).data.n, /^\d+:\S+$/.test(lastEventId)])
          if (got.length < 3) return
          source.close()
          resolve(got)
        }
      }),
  )
  await page.waitForFunction(() => window.ready)
  for (const n of [1, 2, 3]) await publish('news:events', { n })
  assert.deepEqual(await got, [[1, true], [2, true], [3, true]])
})

await browser.close()
