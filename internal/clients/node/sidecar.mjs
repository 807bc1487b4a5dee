// ws and Chromium on the servers of examples/sidecar.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chromium } from 'playwright-core'
import WebSocket from 'ws'
import { addr, ca, name, spki, step } from './port.mjs'

await step('ws: text, binary, and a close that is answered', async () => {
  const socket = new WebSocket(`wss://${name}/ws`, { ca })
  await once(socket, 'open')
  for (const [message, binary] of [['grüße', false], [Buffer.from([0, 1, 254, 255]), true], ['x'.repeat(64 << 10), false]]) {
    const reply = once(socket, 'message')
    socket.send(message)
    const [data, isBinary] = await reply
    assert.equal(isBinary, binary)
    assert.ok(data.equals(Buffer.from(message)))
  }
  socket.close(3001)
  assert.equal((await once(socket, 'close'))[0], 3001)
})

await step('ws: a message that is larger than a route allows', async () => {
  const socket = new WebSocket(`wss://${name}/ws`, { ca })
  await once(socket, 'open')
  socket.send('x'.repeat((64 << 10) + 1))
  assert.equal((await once(socket, 'close'))[0], 1009)
})

await step('ws: the server behind says whose page may connect', async () => {
  const socket = new WebSocket(`wss://${name}/ws`, { ca, origin: 'https://example.com' })
  const [request, response] = await once(socket, 'unexpected-response')
  request.destroy()
  assert.equal(response.statusCode, 401)
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
console.log(`      Chromium ${browser.version()}`)

await step('Chromium: the page, its fetch over HTTP/2 and its WebSocket', async () => {
  const page = await browser.newPage()
  const complaints = []
  page.on('pageerror', (err) => complaints.push(`${err}`))
  const response = await page.goto(`https://${addr}/`)
  assert.equal(response.status(), 200)
  await page.waitForFunction(() => document.querySelector('#socket').value !== '', undefined, { timeout: 10_000 })
  assert.equal(await page.evaluate(() => document.querySelector('#rest').value), 'Hello from Node')
  assert.equal(await page.evaluate(() => document.querySelector('#socket').value), 'Hello, socket')
  const protocols = await page.evaluate(() =>
    [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
      .filter(({ name }) => !name.endsWith('favicon.ico'))
      .map(({ nextHopProtocol }) => nextHopProtocol),
  )
  assert.deepEqual(protocols, ['h2', 'h2'])
  assert.deepEqual(complaints, [])
})

await step('the browser closes', () => browser.close())
