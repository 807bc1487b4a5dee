// Prints what the port knows of a gRPC call and of a WebSocket with the same
// client certificate, for comparison with curl's.
import { once } from 'node:events'
import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'
import WebSocket from 'ws'
import { ca, cert, key, name, proto } from './port.mjs'

const definition = await loader.load('oneport/echo/v1/echo.proto', { includeDirs: [proto], keepCase: true })
const { Echo } = grpc.loadPackageDefinition(definition).oneport.echo.v1
const echo = new Echo(name, grpc.credentials.createSsl(ca, key, cert))
const call = await new Promise((resolve, reject) => {
  echo.Whoami({}, { deadline: Date.now() + 10_000 }, (err, message) => (err ? reject(err) : resolve(message)))
})
echo.close()

const socket = new WebSocket(`wss://${name}/ws/whoami`, { ca, cert, key, handshakeTimeout: 10_000 })
const [message] = await once(socket, 'message')
console.log(JSON.stringify({ grpc: call, websocket: JSON.parse(message) }))
