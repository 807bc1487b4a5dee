// The README's examples have right types, also without a browser's, and run against a server that is no oneport.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { WebSocket, WebSocketServer } from 'ws'

const root = fileURLToPath(new URL('..', import.meta.url))

/** serve is a server of tickets, an echo and a stream, on ws. */
async function serve(t) {
  const server = createServer((request, response) => {
    if (request.url === '/ticket' && request.method === 'POST' && request.headers.authorization === 'Bearer good') {
      response.end('{"ticket":"T","expires_in":30}')
    } else if (request.url === '/api/hello') response.end('{"message":"Hello"}')
    else response.writeHead(401).end()
  })
  const sockets = new WebSocketServer({ server, verifyClient: ({ req }) => req.url.includes('ticket=T') })
  sockets.on('connection', (socket, request) => {
    if (request.url.startsWith('/broadcast/stream')) {
      socket.send('{"channel":"news:today","subscribed":{"offset":0,"epoch":"e"}}')
      socket.send('{"channel":"news:today","offset":1,"data":"rain"}')
    } else socket.on('message', (data, binary) => socket.send(data, { binary }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets.clients) socket.terminate()
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${server.address().port}`
}

test('the examples', async (t) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const blocks = [...readme.matchAll(/^```ts\n([^]*?)^```$/gm)].map((m) => m[1])
  assert.equal(blocks.length, 4)
  const dir = mkdtempSync(join(root, 'test', 'readme-')) // where the package's own name is known
  t.after(() => rmSync(dir, { recursive: true }))
  const file = join(dir, 'readme.ts')
  writeFileSync(file, `declare function newToken(stale: string | undefined): Promise<string>\n${blocks.join('\n')}export { socket, echo, ticker, chat, news }\n`)
  execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '--strict', '--target', 'es2022', '--module', 'nodenext', '--lib', 'es2022', '--types', 'node', '--skipLibCheck', 'false', file], { stdio: 'inherit' })

  const js = join(dir, 'readme.js')
  const text = readFileSync(js, 'utf8')
  assert.ok(text.includes("'https://api.example.com'"))
  writeFileSync(js, text.replace("'https://api.example.com'", `'${await serve(t)}'`))
  globalThis.newToken = (stale) => (stale === undefined ? 'old' : 'good')
  globalThis.WebSocket = WebSocket
  const said = []
  t.mock.method(console, 'log', (...words) => said.push(words.filter((w) => w !== undefined).join(' ')))
  const { socket, echo, chat, ticker, news } = await import(pathToFileURL(js))
  for (const one of [echo, chat, ticker]) one.open()
  const first = new Promise((resolve) => chat.on('message', resolve))
  assert.equal(await first, '{"join":"lobby"}')
  const late = Date.now() + 10_000
  while (!(said.includes('hello') && said.includes('news:today 1 rain') && [echo, ticker].every((s) => s.state === 'connected'))) {
    assert.ok(Date.now() < late, `${said}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.ok(said.includes('{"message":"Hello"}'))
  for (const one of [socket, echo, chat, ticker]) one.close()
  news.close()
})
