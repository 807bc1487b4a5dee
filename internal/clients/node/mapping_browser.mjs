// Chromium before what no guard refuses, and what tickets open.
import assert from 'node:assert/strict'
import { browser, context, dial, foreign, open } from './chromium.mjs'
import { name, step } from './port.mjs'
import { tokens } from './tokens.mjs'

const { page, complaints } = await open(`https://${name}/page`)

// A browser tells its page no status of a handshake, but the console.
const refused = async (page, complaints, path, status) => {
  complaints.length = 0
  const { opened, code } = await dial(page, path)
  assert.deepEqual({ opened, code }, { opened: false, code: 1006 })
  assert.match(complaints.join('\n'), status === 401 ? /401|Authentication/ : new RegExp(`Unexpected response code: ${status}`))
}

await step('fetch has the status of each refusal', async () => {
  for (const [path, status, retry] of [
    ['/open', 200, null],
    ['/gone', 502, null],
    ['/crash', 502, null],
    ['/hold', 504, null],
    ['/full/', 503, '1'],
    ['/mtls', 401, null],
  ]) {
    const got = await page.evaluate(async (path) => {
      const answer = await fetch(path)
      return { status: answer.status, retry: answer.headers.get('retry-after') }
    }, path)
    assert.deepEqual(got, { status, retry }, path)
  }
  const posted = await page.evaluate(async () => {
    const post = async (path, length) => (await fetch(path, { method: 'POST', body: 'x'.repeat(length) })).status
    return [await post('/small', 64 << 10), await post('/small', (64 << 10) + 1), await post('/h2c/small', (64 << 10) + 1)]
  })
  assert.deepEqual(posted, [200, 413, 413])
  const long = await page.evaluate(async () => (await fetch('/open', { headers: { 'x-long': 'a'.repeat(20 << 10) } })).status)
  assert.equal(long, 431)
})

await step('a WebSocket is not opened: no server, no certificate, no ticket', async () => {
  await refused(page, complaints, '/gone', 502)
  await refused(page, complaints, '/mtls', 401)
  await refused(page, complaints, '/ticketed', 401)
})

// send opens a WebSocket, sends a message, and gives how it ends.
const send = (message) =>
  page.evaluate(
    ({ url, message }) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url)
        socket.onopen = () => socket.send(message)
        socket.onclose = ({ code, wasClean }) => resolve({ code, wasClean })
      }),
    { url: `wss://${name}/open`, message },
  )

await step('a message over 64 KiB closes it with 1009', async () => {
  assert.deepEqual(await send('x'.repeat((64 << 10) + 1)), { code: 1009, wasClean: true })
})

await step('a server that leaves without a word closes it with 1011', async () => {
  assert.deepEqual(await send('leave'), { code: 1011, wasClean: true })
})

await step('a ticket opens one WebSocket', async () => {
  const ticket = await page.evaluate(async (token) => {
    const answer = await fetch('/ticket', { method: 'POST', headers: { authorization: `Bearer ${token}` } })
    return (await answer.json()).ticket
  }, tokens.alice)
  const { opened, code } = await dial(page, `/ticketed?ticket=${ticket}`)
  assert.deepEqual({ opened, code }, { opened: true, code: 1000 })
  await refused(page, complaints, `/ticketed?ticket=${ticket}`, 401)
})

await step('a cookie gets a ticket for pages of the same origin alone', async () => {
  await page.evaluate((token) => (document.cookie = `session=${token}; Secure; SameSite=Strict; Path=/`), tokens.alice)
  const post = (page) => page.evaluate(async (url) => (await fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' })).status, `https://${name}/ticket`)
  assert.equal(await post(page), 200)
  const other = await foreign()
  const answer = other.page.waitForResponse((response) => response.url() === `https://${name}/ticket`)
  assert.equal(await post(other.page), 0) // opaque to the page
  assert.equal((await answer).status(), 401)
  other.origin.close()
  await context.clearCookies()
})

await step('the browser closes', () => browser.close())
