// Newer tokens over the open connection, by the subprotocol oneport.auth.v1. What
// it says never reaches the application.
import { type Env } from './env.js'
import { type Tokens } from './token.js'

/** The subprotocol that is offered. */
export const inBandName = 'oneport.auth.v1'

/** What has become of a newer token that was shown on the open connection. */
export interface RefreshEvent {
  /** Whether the session now ends with the newer token. */
  ok: boolean
  /** Seconds until it ends, if ok and if the server says it. */
  expiresIn?: number
  /** Why not: the server's reason, or `no-token`, `no-answer`, `no-new-token`. The session then ends when it would have, and the socket comes back with a new token. */
  reason?: string
}

const begin = '{"oneport":'

/** reserved is whether a message is, in this mode, the port's or for it. */
export function reserved(data: unknown): data is string {
  return typeof data === 'string' && data.startsWith(begin)
}

const tries = 3
const answerWithin = 10_000

/** InBand is one connection's. It waits for nothing longer than ten seconds, or the token source's deadline. */
export class InBand {
  /** The session's id, once the server has said that the mode is on. */
  id: string | undefined
  #first = true
  #shown: string | undefined
  #tried = 0
  #timer: unknown
  #busy = false
  #over = false

  constructor(
    readonly env: Env,
    readonly tokens: Tokens,
    /** The token that the connection has now. */
    public token: string | undefined,
    readonly send: (text: string) => void,
    readonly say: (event: RefreshEvent) => void,
  ) {}

  /** on is whether the server takes messages that begin as ours. */
  get on(): boolean {
    return this.id !== undefined
  }

  /** take sees each message first. It reports whether it was one of the mode's. */
  take(data: unknown): boolean {
    const first = this.#first
    this.#first = false
    if ((!first && !this.on) || !reserved(data)) return false
    let message: any
    try {
      message = JSON.parse(data)
    } catch {
      return this.on // the port has no such message; nor has the application
    }
    if (first) {
      if (message.oneport !== 'session' || typeof message.id !== 'string') return false
      this.id = message.id
      return true
    }
    if (message.oneport === 'token-expires') {
      this.#tried = 0
      void this.#show()
    } else if (message.oneport === 'refreshed') {
      if (this.#answered()) {
        this.token = this.#shown
        this.say({ ok: true, ...(typeof message.expires_in === 'number' && { expiresIn: message.expires_in }) })
      }
    } else if (message.oneport === 'refused') {
      if (this.#answered()) this.#refused(String(message.reason))
    }
    return true
  }

  /** stop ends it, with its connection. */
  stop(): void {
    this.#over = true
    this.env.clearTimeout(this.#timer)
  }

  /** show fetches a newer token and sends it. */
  async #show(): Promise<void> {
    if (this.#busy || this.#over) return
    this.#busy = true
    this.env.clearTimeout(this.#timer)
    this.#tried++
    let token: string | undefined
    try {
      token = await this.tokens.get(this.token)
    } catch {
      // The source is asked once more below.
    }
    if (this.#over) return
    if (token === undefined) {
      this.#busy = false
      return this.#again('no-token', 5000)
    }
    if (token === this.token) {
      this.#busy = false
      return this.say({ ok: false, reason: 'no-new-token' })
    }
    this.#shown = token
    this.#timer = this.env.setTimeout(() => {
      this.#busy = false
      this.say({ ok: false, reason: 'no-answer' })
    }, answerWithin)
    this.send(`${begin}"refresh","token":${JSON.stringify(token)}}`)
  }

  #answered(): boolean {
    if (!this.#busy) return false
    this.#busy = false
    this.env.clearTimeout(this.#timer)
    return true
  }

  #refused(reason: string): void {
    if (reason !== 'too-many' && reason !== 'try-again-later') return this.say({ ok: false, reason })
    // The token is as good as it was: it is shown again, and not fetched again.
    this.#again(reason, reason === 'too-many' ? 2000 : 5000)
  }

  /** again has show run once more after a second and a random part of ms. */
  #again(reason: string, ms: number): void {
    if (this.#tried >= tries) return this.say({ ok: false, reason })
    this.#timer = this.env.setTimeout(() => void this.#show(), 1000 + this.env.random() * ms)
  }
}
