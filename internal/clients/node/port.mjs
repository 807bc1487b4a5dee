// What every script here needs: where the port is, and how a wrong answer ends
// the program.
import { readFileSync } from 'node:fs'

function setting(name) {
  const value = process.env[name]
  if (!value) {
    console.error(`${name} is not set; internal/clients/demo_test.go says what it means`)
    process.exit(2)
  }
  return value
}

export const addr = setting('ONEPORT_ADDR') // host:port of the TLS port
export const plain = setting('ONEPORT_PLAIN') // host:port of the plaintext port
export const name = `localhost:${addr.split(':').at(-1)}` // addr by name, so that clients send SNI
export const ca = readFileSync(setting('ONEPORT_CA'))
export const cert = readFileSync(setting('ONEPORT_CERT')) // the client's, CN=alice
export const key = readFileSync(setting('ONEPORT_KEY'))
export const proto = setting('ONEPORT_PROTO') // the folder of the .proto files
export const descriptors = setting('ONEPORT_DESCRIPTORS') // a FileDescriptorSet of them
export const spki = setting('ONEPORT_SPKI') // base64 SHA-256 of the server's public key
export const out = setting('ONEPORT_OUT') // a folder for what is to be looked at

// Steps that are about the client's own connection, and so not for a server behind a proxy.
const skip = process.env.ONEPORT_SKIP && new RegExp(process.env.ONEPORT_SKIP)

// step runs one check and says so. A wrong answer, or none within the time,
// ends the program.
export async function step(what, check, seconds = 10) {
  if (skip?.test(what)) return
  const late = setTimeout(() => fail(what, new Error(`no answer within ${seconds} s`)), seconds * 1000)
  try {
    await check()
  } catch (err) {
    fail(what, err)
  }
  clearTimeout(late)
  console.log(`ok    ${what}`)
}

function fail(what, err) {
  console.error(`WRONG ${what}:`, err)
  process.exit(1)
}
