// client/js in node, with ws, and in Chromium: tickets, tokens that end, refusals, and a port
// that is ended and started again. The same functions run in both.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import WebSocket from 'ws'
import { browser, open } from './chromium.mjs'
import { name, step } from './port.mjs'
import { tokenFor } from './tokens.mjs'

const dist = new URL('../../../client/js/dist/', import.meta.url)
const { page } = await open(`https://${name}/page`)
await page.route('**/client/*', async (route) => {
  const file = new URL(basename(new URL(route.request().url()).pathname), dist)
  await route.fulfill({ contentType: 'text/javascript', body: await readFile(file, 'utf8') })
})
await page.exposeFunction('tokenFor', tokenFor)
Object.assign(globalThis, { WebSocket, tokenFor })

const places = {
  node: { module: new URL('index.js', dist).href, run: (f, arg) => f(arg) },
  Chromium: { module: `https://${name}/client/index.js`, run: (f, arg) => page.evaluate(f, arg) },
}

// prepare makes what the steps have in common: sockets that write down what happens.
async function prepare({ module, url }) {
  const { Client } = await import(module)
  globalThis.made = (seconds, path, options) => {
    const left = [...seconds] // of the tokens to come; the last one for good
    const client = new Client({ url, token: () => tokenFor('alice', left.length > 1 ? left.shift() : left[0]) })
    const t = { client, states: [], events: [], got: [], socket: client.socket(path, options) }
    t.socket.on('state', (e) => {
      t.states.push(e.state)
      t.events.push({ ...e, error: e.error && { code: e.error.code, reason: e.error.reason, status: e.error.status, name: e.error.name } })
    })
    t.socket.on('message', (data) => t.got.push(typeof data === 'string' ? data : [...new Uint8Array(data)]))
    return t
  }
  globalThis.until = async (what, check) => {
    for (let i = 0; i < 1500; i++) {
      if (check()) return
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    throw new Error(`not within 15 s: ${what}`)
  }
}

for (const [place, { module, run }] of Object.entries(places)) {
  const check = (what, f, seconds) => step(`${place}: ${what}`, f, seconds)
  await run(prepare, { module, url: `https://${name}` })

  await check('fetch comes through with a newer token after 401', async () => {
    const status = await run(async () => (await made([-60, 600], '/ws').client.fetch('/in')).status)
    assert.equal(status, 200)
  })

  await check('a ticket with a newer token after 401, then text and binary', async () => {
    const { states, got, events } = await run(async () => {
      const t = (globalThis.kept = made([-60, 600], '/ws', { ticket: '/ticket' }))
      t.socket.send('early')
      t.socket.open()
      await until('connected', () => t.socket.state === 'connected')
      t.socket.send('grüße')
      t.socket.send(new Uint8Array([0, 1, 254, 255]))
      await until('echoes', () => t.got.length === 3)
      return { states: t.states, got: t.got, events: t.events }
    })
    assert.deepEqual(states, ['connecting', 'disconnected', 'connecting', 'connected'])
    assert.equal(events[1].error.status, 401)
    assert.deepEqual(got, ['early', 'grüße', [0, 1, 254, 255]])
  })

  await check('the token as a subprotocol', async () => {
    const state = await run(async () => {
      const t = made([600], '/ws')
      t.socket.open()
      await until('connected', () => t.socket.state === 'connected')
      t.socket.close()
      await until('closed', () => t.socket.state === 'disconnected')
      return t.states.join(' ')
    })
    assert.equal(state, 'connecting connected closing disconnected')
  })

  await check('403 is final, and 429 is waited for', async () => {
    const { forbidden, few } = await run(async () => {
      const t = made([600], '/ws', { ticket: '/admin' })
      t.socket.open()
      await until('failed', () => t.socket.state === 'failed')
      const f = made([600], '/ws', { ticket: '/few' })
      await f.client.fetch('/few', { method: 'POST' })
      f.socket.open()
      await until('disconnected', () => f.socket.state === 'disconnected')
      f.socket.close()
      return { forbidden: t.events, few: f.events[1] }
    })
    assert.equal(forbidden.length, 2)
    assert.equal(forbidden[1].error.status, 403)
    assert.equal(few.error.status, 429)
    assert.ok(few.delay >= 300_000 && few.delay < 301_000, `${few.delay}`)
  })

  await check(
    'the end of its token closes it with 1008, and it comes back with a new one',
    async () => {
      const { states, error } = await run(async () => {
        const t = made([3, 600], '/ws', { ticket: '/ticket' })
        t.socket.open()
        await until('back', () => t.states.length === 5)
        t.socket.close()
        return { states: t.states.slice(0, 5), error: t.events[2].error }
      })
      assert.deepEqual(states, ['connecting', 'connected', 'disconnected', 'connecting', 'connected'])
      assert.equal(error.code, 1008)
      assert.equal(error.reason, 'token-expired')
    },
    20,
  )
}

console.log('restart')

for (const [place, { run }] of Object.entries(places)) {
  await step(
    `${place}: the drain closes it with 1001, and it comes back to the next one`,
    async () => {
      const events = await run(async () => {
        await until('back', () => kept.states.filter((s) => s === 'connected').length === 2)
        kept.socket.send('again')
        await until('an echo', () => kept.got.at(-1) === 'again')
        return kept.events.slice(4)
      })
      console.log(`      ${events.map((e) => e.state).join(' ')}`)
      assert.equal(events[0].state, 'disconnected')
      assert.equal(events[0].error.code, 1001)
      // The second in a row, after the 401, unless the connection has lasted for 10 s.
      assert.ok(events[0].delay <= 2000, `${events[0].delay}`)
      await run(async () => {
        kept.socket.close()
        await until('closed', () => kept.socket.state === 'disconnected')
      })
    },
    20,
  )
}

await step('the browser closes', () => browser.close())
