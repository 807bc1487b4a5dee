// The tokens of the tests of guards, and how to have more made.
import { execFileSync } from 'node:child_process'

export const tokens = JSON.parse(process.env.ONEPORT_TOKENS)

// tokenFor has oneport make a token that is good for some seconds.
export function tokenFor(sub, seconds) {
  const args = ['token', 'make', '--key', process.env.ONEPORT_TOKEN_KEY, '--iss', 'test', '--aud', 'edge', '--sub', sub, '--ttl', `${seconds}s`]
  return execFileSync(process.env.ONEPORT_PROGRAM, args).toString().trim()
}

// expires is when a token ends, in milliseconds.
export function expires(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).exp * 1000
}
