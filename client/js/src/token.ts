import { type Env, within } from './env.js'
import { FinalError, StatusError, retryAfter } from './policy.js'

/** Gives a token: an empty one, or none, ends what asked for it. stale is the one that is not good any longer, if any. */
export type TokenSource = (stale: string | undefined, signal: AbortSignal) => string | undefined | Promise<string | undefined>

/** Tokens keeps the newest token of a client. Those who need one at the same time share one call of the source. */
export class Tokens {
  #current: string | undefined
  #asked: Promise<string> | undefined

  constructor(
    readonly env: Env,
    readonly source: TokenSource | undefined,
    readonly timeout: number,
  ) {}

  /** get gives the newest token, which is not stale. It is undefined for a client that has none. */
  async get(stale?: string): Promise<string | undefined> {
    const source = this.source
    if (source === undefined) return undefined
    if (this.#current !== undefined && this.#current !== stale) return this.#current
    this.#asked ??= within(this.env, this.timeout, 'the token', async (signal) => {
      const token = await source(this.#current, signal)
      if (!token) throw new FinalError('oneport: there is no token')
      this.#current = token
      return token
    }).finally(() => (this.#asked = undefined))
    return this.#asked
  }
}

const mostTicket = 4096

/**
 * ticketFrom asks for a ticket: the way into a WebSocket for browsers, which can set no field of
 * a handshake, and on which they can see why they are refused.
 */
export async function ticketFrom(env: Env, url: string, token: string | undefined, signal: AbortSignal): Promise<string> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const res = await env.fetch(url, { method: 'POST', headers, signal, cache: 'no-store', credentials: 'same-origin' })
  if (!res.ok) {
    void res.body?.cancel().catch(() => undefined)
    throw new StatusError(res.status, retryAfter(res.headers.get('retry-after'), env.now()))
  }
  const { ticket } = (await res.json()) as { ticket?: unknown }
  if (typeof ticket !== 'string' || ticket === '' || ticket.length > mostTicket) throw new FinalError('oneport: the answer has no ticket')
  return ticket
}
