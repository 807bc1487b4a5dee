import { Emitter } from './emitter.js'
import { type Env } from './env.js'
import { type RefreshEvent, reserved } from './inband.js'
import { type Data, type Heartbeat, Link, offersInBand } from './link.js'
import { type Backoff, CloseError, FinalError, GaveUpError, StatusError, decide, delay } from './policy.js'
import { type Tokens } from './token.js'

/**
 * Where a socket stands:
 *
 *     disconnected -> connecting -> connected -> closing -> disconnected, for good
 *          ^              |             |
 *          +--------------+-------------+ what may be tried again
 *                                       +-> failed: what may not
 *
 * While it waits to try again it is disconnected.
 */
export type State = 'disconnected' | 'connecting' | 'connected' | 'closing' | 'failed'

/** One change of state. */
export interface StateEvent {
  state: State
  /** The try in a row, from 1: since open, or since the last connection that stayed healthy. */
  attempt: number
  /** Milliseconds until the next try, of a disconnected socket that comes back. */
  delay?: number
  /** Nothing follows, unless open is called again. */
  final: boolean
  /** Why a connection, or a try, has ended. */
  error?: unknown
  /** How many messages were queued and are dropped, of a final event. */
  unsent?: number
}

export interface SocketEvents {
  state: StateEvent
  message: string | ArrayBuffer
  refresh: RefreshEvent
}

export interface SocketOptions {
  /** Subprotocols to offer. */
  protocols?: string[]
  /** A path that gives tickets, as `/ticket`: each try gets one first. Without it the token is offered as the subprotocol `bearer`. */
  ticket?: string
  /** Sends no token, for servers that know nothing of it: no ticket, no subprotocol. */
  anonymous?: boolean
  /** Offers oneport.auth.v1, to take newer tokens to the server on the open connection. Off unless given: browsers refuse a server that takes none of the subprotocols it is offered. */
  inBand?: boolean
  backoff?: Partial<Backoff>
  /** Has it come back also after close code 1000 (or none) of the server, which ends it otherwise. */
  again?: boolean
  /** Milliseconds for a token, a ticket, the handshake and onConnect together; 10,000 unless given. */
  connectTimeout?: number
  /** Milliseconds that the server has for its close frame after close; 5,000 unless given. */
  closeTimeout?: number
  /** How many messages wait for a connection; 64 unless given. */
  queue?: number
  /** How many bytes wait, for a connection or on one; 1 MiB unless given. */
  queueBytes?: number
  /** Finds servers that are gone without a word. Off unless given: see Heartbeat. */
  heartbeat?: Heartbeat
  /** Says on each new connection what must be said first, as subscriptions, before the socket is connected and the queue leaves. An error ends the connection, and is tried again. */
  onConnect?: (send: (data: Data) => void) => void | Promise<void>
}

/** A WebSocket that comes back by itself. */
export class Socket extends Emitter<SocketEvents> {
  readonly #o: Required<Pick<SocketOptions, 'connectTimeout' | 'closeTimeout' | 'queue' | 'queueBytes'>> & SocketOptions
  readonly #backoff: Backoff
  #state: State = 'disconnected'
  #link: Link | undefined
  #timer: unknown // to the next try, or of closing
  #attempt = 0
  #renewed = false // the token was renewed after a 401, and no connection has come of it
  #stale: string | undefined // the token that the next try must not have
  #since = 0 // when it was connected
  #notBefore = 0 // of the next try, by Retry-After
  #waiting = false
  #queue: Data[] = []
  #queued = 0 // bytes

  /** Use Client.socket. */
  constructor(
    private readonly env: Env,
    private readonly tokens: Tokens,
    /** URLs of a try: of the WebSocket, and of its ticket. */
    private readonly urls: { socket: () => string; ticket: string | undefined },
    options: SocketOptions,
    backoff: Backoff,
  ) {
    super()
    this.#backoff = { ...backoff, ...options.backoff }
    this.#o = { ...options, connectTimeout: options.connectTimeout ?? 10_000, closeTimeout: options.closeTimeout ?? 5000, queue: options.queue ?? 64, queueBytes: options.queueBytes ?? 1 << 20 }
  }

  get state(): State {
    return this.#state
  }

  /** The session's id, where the server says it (oneport.auth.v1). */
  get id(): string | undefined {
    return this.#link?.inBand?.id
  }

  /** open connects, and stays connected until close, or until something is final. It does nothing if it is at it. */
  open(): this {
    if (this.#state === 'failed' || (this.#state === 'disconnected' && !this.#waiting)) {
      this.#attempt = 0
      this.#notBefore = 0
      this.#renewed = false
      this.#listen(true)
      this.#try()
    }
    return this
  }

  /**
   * send sends a message, or queues it until there is a connection. What a connection has taken
   * when it ends may be lost. It throws when the queue is full, and after the end.
   */
  send(data: Data): void {
    if (reserved(data) && offersInBand(this.#o)) throw new TypeError('oneport: a message that begins with {"oneport": would be taken by the port')
    const size = sizeOf(data)
    const link = this.#link
    if (this.#state === 'connected' && link !== undefined) {
      if (link.buffered + size > this.#o.queueBytes) throw new RangeError('oneport: the server takes too little: too many bytes wait')
      return link.send(data)
    }
    if (this.#state === 'failed' || this.#state === 'closing') throw new Error(`oneport: the socket is ${this.#state}`)
    if (this.#queue.length >= this.#o.queue || this.#queued + size > this.#o.queueBytes) throw new RangeError('oneport: too much waits for a connection')
    this.#queue.push(data)
    this.#queued += size
  }

  /** close ends it; open begins anew. code is 1000, or 3000 to 4999. */
  close(code = 1000, reason = ''): void {
    const link = this.#link
    this.#listen(false)
    this.env.clearTimeout(this.#timer)
    if (this.#state === 'connected' && link !== undefined) {
      this.#set({ state: 'closing', final: false })
      this.#timer = this.env.setTimeout(() => {
        link.drop()
        this.#finish({ state: 'disconnected', final: true })
      }, this.#o.closeTimeout)
      link.close(code, reason)
    } else if (this.#state === 'connecting' || this.#waiting) {
      link?.drop()
      this.#finish({ state: 'disconnected', final: true })
    }
  }

  #set(event: Omit<StateEvent, 'attempt'>): void {
    this.#state = event.state
    this.emit('state', { attempt: this.#attempt, ...event })
  }

  /** finish is the end, of which event says why. */
  #finish(event: Omit<StateEvent, 'attempt'>): void {
    this.#listen(false)
    this.env.clearTimeout(this.#timer)
    this.#link = undefined
    this.#waiting = false
    const unsent = this.#queue.length
    this.#queue = []
    this.#queued = 0
    this.#set({ ...event, unsent })
  }

  #try(): void {
    this.#waiting = false
    this.#attempt++
    const link = (this.#link = new Link(this.env, this.tokens, {
      urls: this.urls,
      options: this.#o,
      stale: this.#stale,
      connected: () => this.#connected(link),
      message: (data) => this.emit('message', data),
      refresh: (event) => this.emit('refresh', event),
      ended: (err) => this.#ended(link, err),
    }))
    this.#set({ state: 'connecting', final: false })
    if (this.#link === link && this.#state === 'connecting') link.start() // a listener may have closed it
  }

  #connected(link: Link): void {
    this.#renewed = false
    this.#stale = undefined
    this.#since = this.env.now()
    const queue = this.#queue
    this.#queue = []
    this.#queued = 0
    for (const data of queue) link.send(data)
    this.#set({ state: 'connected', final: false })
  }

  #ended(link: Link, error: unknown): void {
    if (link !== this.#link) return
    this.#link = undefined
    if (this.#state === 'closing') return this.#finish({ state: 'disconnected', final: true })
    if (this.#state === 'connected' && this.env.now() - this.#since >= this.#backoff.healthy) this.#attempt = 0
    let action = decide(error)
    if (action === 'closed') {
      if (!this.#o.again) return this.#finish({ state: 'disconnected', final: true, error })
      action = 'retry'
    }
    if (action === 'final') return this.#finish({ state: 'failed', final: true, error })
    if (action === 'again' || action === 'renew') this.#stale = link.token
    // A handshake that failed may have been answered with 401: browsers do not say.
    if (error instanceof CloseError && !error.opened && this.urls.ticket === undefined) this.#stale = link.token
    if (action === 'again') {
      if (this.#renewed || link.token === undefined) return this.#finish({ state: 'failed', final: true, error })
      this.#renewed = true
      return this.#wait(0, error)
    }
    if (this.#attempt >= this.#backoff.tries) {
      const cause = new GaveUpError(`oneport: gave up after ${this.#attempt} tries`, { cause: error })
      return this.#finish({ state: 'failed', final: true, error: cause })
    }
    const after = error instanceof StatusError ? error.retryAfter : 0
    this.#notBefore = this.env.now() + after
    this.#wait(delay(this.#backoff, Math.max(1, this.#attempt), this.env.random, after), error)
  }

  #due = 0
  #hurried = false

  #wait(ms: number, error: unknown): void {
    this.#waiting = true
    this.#hurried = false
    this.#due = this.env.now() + ms
    this.#timer = this.env.setTimeout(() => this.#try(), ms)
    this.#set({ state: 'disconnected', final: false, delay: ms, error })
  }

  /** hurry comes back sooner: the network is there again, or somebody looks. Once in a wait, at random within the shortest span, and no sooner than the server said. */
  readonly #hurry = (): void => {
    if (!this.#waiting || this.#hurried || this.env.document?.visibilityState === 'hidden') return
    this.#hurried = true
    const now = this.env.now()
    const due = Math.max(now, this.#notBefore) + this.env.random() * this.#backoff.base
    if (due >= this.#due) return
    this.env.clearTimeout(this.#timer)
    this.#due = due
    this.#timer = this.env.setTimeout(() => this.#try(), due - now)
  }

  #listening = false

  #listen(on: boolean): void {
    if (on === this.#listening) return
    this.#listening = on
    const how = on ? 'addEventListener' : 'removeEventListener'
    this.env.window?.[how]('online', this.#hurry)
    this.env.document?.[how]('visibilitychange', this.#hurry)
  }

  /** fail ends it as failed: what the server sends makes no sense. */
  fail(why: string): void {
    const link = this.#link
    if (link === undefined || this.#state === 'closing') return
    link.close(1000, '')
    link.forget()
    this.#finish({ state: 'failed', final: true, error: new FinalError(why) })
  }
}

/** sizeOf is a message's size in bytes; of text at most. */
function sizeOf(data: Data): number {
  return typeof data === 'string' ? data.length * 3 : data.byteLength
}
