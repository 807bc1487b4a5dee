// The web application: REST, a page, and a WebSocket that sends back what it
// gets, on port 8080, or $PORT. It speaks HTTP/1.1 in plaintext and knows nothing of TLS.
import { once } from 'node:events'
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'

const page = `<!doctype html>
<meta charset="utf-8">
<title>Behind oneport</title>
<h1>Behind oneport</h1>
<p>REST: <output id="rest"></output></p>
<p>WebSocket: <output id="socket"></output></p>
<script type="module">
  const hello = await (await fetch('/api/v2/hello')).json()
  rest.value = hello.message
  const ws = new WebSocket('wss://' + location.host + '/ws')
  ws.onopen = () => ws.send('Hello, socket')
  ws.onmessage = ({ data }) => (socket.value = data)
</script>
`

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://app')
  if (pathname === '/') {
    response.setHeader('content-type', 'text/html')
    response.end(page)
  } else if (pathname === '/api/v2/hello') {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ message: 'Hello from Node', client: request.headers['x-forwarded-for'], scheme: request.headers['x-forwarded-proto'] }))
  } else if (pathname === '/api/v2/echo') {
    request.pipe(response)
  } else {
    response.statusCode = 404
    response.end('nothing here\n')
  }
})

// A browser's page must be one of ours: Host is what the client asked for.
const own = ({ origin, req }) => !origin || new URL(origin).host === req.headers.host
const sockets = new WebSocketServer({ server, path: '/ws', verifyClient: own })
sockets.on('connection', (socket) => {
  socket.on('error', () => {}) // the close says it
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
})

server.listen(process.env.PORT ?? 8080, '127.0.0.1')
await once(server, 'listening')
console.log(`app: http://127.0.0.1:${server.address().port}`)

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    for (const socket of sockets.clients) socket.close(1001)
    server.close()
  })
}
