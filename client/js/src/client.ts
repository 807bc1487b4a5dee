import { Subscription, type SubscriptionOptions } from './broadcast.js'
import { type Env, within, withDefaults } from './env.js'
import { type Backoff, backoff } from './policy.js'
import { Socket, type SocketOptions } from './socket.js'
import { type TokenSource, Tokens } from './token.js'

export interface ClientOptions {
  /** The address: `https://api.example.com`. A path of it is of no account. In pages it is the page's own unless given. */
  url?: string
  /** Gives tokens. It is asked for the first when one is needed, and for a newer one when that is not good any longer. */
  token?: TokenSource
  /** Milliseconds that token may take; 10,000 unless given. */
  tokenTimeout?: number
  /** Milliseconds until the head of an answer to fetch; 30,000 unless given. */
  fetchTimeout?: number
  /** How sockets come back, unless they have their own. */
  backoff?: Partial<Backoff>
  /** What is taken of the surroundings: WebSocket, fetch, timers, random. */
  env?: Partial<Env>
}

/** A Client calls one address, with one token. It holds nothing open by itself. */
export class Client {
  readonly #env: Env
  readonly #tokens: Tokens
  readonly #url: URL
  readonly #fetchTimeout: number
  readonly #backoff: Backoff

  constructor(options: ClientOptions = {}) {
    const url = options.url ?? (globalThis as any).location?.origin
    if (url === undefined) throw new TypeError('oneport: url is not given')
    this.#url = new URL(url)
    if (!/^https?:$/.test(this.#url.protocol)) throw new TypeError('oneport: url is to begin with https:// or http://')
    this.#env = withDefaults(options.env)
    this.#tokens = new Tokens(this.#env, options.token, options.tokenTimeout ?? 10_000)
    this.#fetchTimeout = options.fetchTimeout ?? 30_000
    this.#backoff = { ...backoff, ...options.backoff }
  }

  /**
   * fetch is the platform's, for a path of the address and with the token. After 401 it asks
   * once more with a newer token, if the body can be sent twice.
   */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const url = this.#at(path).href
    const own = new Headers(init.headers).has('authorization')
    const token = own ? undefined : await this.#tokens.get()
    const res = await this.#once(url, init, token)
    if (res.status !== 401 || token === undefined || init.body instanceof ReadableStream) return res
    const newer = await this.#tokens.get(token)
    if (newer === token) return res
    void res.body?.cancel().catch(() => undefined)
    return this.#once(url, init, newer)
  }

  /** socket gives a WebSocket for a path, which may have a query. It does nothing until open. */
  socket(path: string | (() => string), options: SocketOptions = {}): Socket {
    const target = typeof path === 'string' ? () => path : path
    const ticket = options.ticket === undefined || options.anonymous ? undefined : this.#at(options.ticket).href
    const urls = { socket: () => this.#at(target()).href.replace(/^http/, 'ws'), ticket }
    urls.socket() // a path elsewhere is found now
    return new Socket(this.#env, this.#tokens, urls, options, this.#backoff)
  }

  /** subscribe gives the messages of channels of oneport's broadcast. It does nothing until open. */
  subscribe(channels: string | readonly string[], options: SubscriptionOptions = {}): Subscription {
    return new Subscription(typeof channels === 'string' ? [channels] : [...channels], options, (path, o) => this.socket(path, o))
  }

  /** at is a path's URL. Another address's never gets the token. */
  #at(path: string): URL {
    const url = new URL(path, this.#url.origin)
    if (url.origin !== this.#url.origin) throw new TypeError(`oneport: ${path} is not at ${this.#url.origin}`)
    url.hash = ''
    return url
  }

  #once(url: string, init: RequestInit, token: string | undefined): Promise<Response> {
    const headers = new Headers(init.headers)
    if (token !== undefined) headers.set('authorization', `Bearer ${token}`)
    const outer = init.signal ?? undefined
    return within(
      this.#env,
      this.#fetchTimeout,
      'the answer',
      (signal) => {
        // The caller's signal holds for the body too; ours, until the head is there.
        const abort = new AbortController()
        signal.addEventListener('abort', () => abort.abort(signal.reason))
        outer?.addEventListener('abort', () => abort.abort(outer.reason), { once: true })
        return this.#env.fetch(url, { ...init, headers, signal: abort.signal })
      },
      outer,
    )
  }
}
