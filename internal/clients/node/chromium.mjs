// Chromium for the tests of refusals: pages, and WebSockets in them.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { chromium } from 'playwright-core'
import { name, spki } from './port.mjs'

export const browser = await chromium.launch({
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
export const context = await browser.newContext()

// open gives a page, and the list of what its console says.
export async function open(url) {
  const page = await context.newPage()
  page.setDefaultTimeout(10_000)
  const complaints = []
  page.on('console', (message) => complaints.push(message.text()))
  await page.goto(url)
  return { page, complaints }
}

// dial opens a WebSocket in a page: what has become of it, and all that it learns of the end.
export const dial = (page, path, { subprotocols = [], send = 0, stay = false } = {}) =>
  page.evaluate(
    ({ url, subprotocols, send, stay }) =>
      new Promise((resolve) => {
        const got = { opened: false }
        const socket = new WebSocket(url, subprotocols)
        socket.onopen = () => {
          Object.assign(got, { opened: true, protocol: socket.protocol })
          for (let i = 0; i < send; i++) socket.send('x')
          if (!send && !stay) socket.close(1000)
        }
        socket.onclose = ({ code, reason, wasClean }) => resolve({ ...got, code, reason, wasClean, when: Date.now() })
      }),
    { url: `wss://${name}${path}`, subprotocols, send, stay },
  )

// foreign gives a page of another port: another origin and the same site, so that the browser
// sends cookies along.
export async function foreign() {
  const server = process.env.ONEPORT_SERVER
  const origin = createServer({ cert: readFileSync(`${server}.crt`), key: readFileSync(`${server}.key`) }, (_, response) =>
    response.setHeader('content-type', 'text/html').end('<title>other</title>'),
  )
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  return { origin, ...(await open(`https://localhost:${origin.address().port}/`)) }
}
