import { type Env, type WebSocketLike, within } from './env.js'
import { InBand, type RefreshEvent, inBandName, reserved } from './inband.js'
import { CloseError, FinalError, SilentError } from './policy.js'
import { type SocketOptions } from './socket.js'
import { type Tokens, ticketFrom } from './token.js'

/** What can be sent. */
export type Data = string | ArrayBuffer | ArrayBufferView

/**
 * How to find a server that is gone without a word. Browsers can send no pings, and show
 * none that come: only messages count.
 *
 * With `ping` that is sent after `every` of silence, and whatever comes within `within` is an
 * answer: for servers that answer it, as an echo does. Without `ping` the server has to send
 * something of its own at least every `every`.
 */
export interface Heartbeat {
  /** Milliseconds. */
  every: number
  /** Milliseconds; 10,000 unless given. */
  within?: number
  /** A message that the server answers. */
  ping?: string | (() => string)
  /** Says which messages are answers to ping: they do not reach the application. */
  isPong?: (data: string | ArrayBuffer) => boolean
}

/** What a link tells its socket. Of ended there is one, and nothing after it. */
interface Owner {
  urls: { socket: () => string; ticket: string | undefined }
  options: SocketOptions & { connectTimeout: number }
  stale: string | undefined
  connected: () => void
  message: (data: string | ArrayBuffer) => void
  refresh: (event: RefreshEvent) => void
  ended: (err: unknown) => void
}

/** offersInBand is whether a socket offers oneport.auth.v1: messages that begin as its own are not sent then. */
export function offersInBand(o: SocketOptions): boolean {
  return o.inBand === true && !o.anonymous
}

/** Link is one try to connect, and the connection that comes of it. */
export class Link {
  #token: string | undefined
  inBand: InBand | undefined
  #ws: WebSocketLike | undefined
  #over = false
  #connected = false
  readonly #abort = new AbortController()
  #beat: unknown
  #due = 0
  #pinged = false

  constructor(
    private readonly env: Env,
    private readonly tokens: Tokens,
    private readonly owner: Owner,
  ) {}

  /** The token that the connection has, or was to have. */
  get token(): string | undefined {
    return this.inBand?.token ?? this.#token
  }

  get buffered(): number {
    return this.#ws?.bufferedAmount ?? 0
  }

  start(): void {
    const { connectTimeout } = this.owner.options
    within(this.env, connectTimeout, 'connecting', (signal) => this.#connect(signal), this.#abort.signal).then(
      () => {
        if (this.#over) return
        this.#connected = true
        this.#heard()
        this.owner.connected()
      },
      (err) => this.#end(err),
    )
  }

  async #connect(signal: AbortSignal): Promise<void> {
    const { options, urls, stale } = this.owner
    const protocols = [...(options.protocols ?? [])]
    const url = new URL(urls.socket())
    if (!options.anonymous) {
      this.#token = await this.tokens.get(stale)
      if (offersInBand(options)) protocols.push(inBandName)
      if (urls.ticket !== undefined) {
        url.searchParams.set('ticket', await ticketFrom(this.env, urls.ticket, this.token, signal))
      } else if (this.token !== undefined) {
        protocols.push('bearer', this.token)
      }
    }
    if (signal.aborted) throw signal.reason
    await this.#open(url.href, protocols)
    await options.onConnect?.((data) => this.send(data))
  }

  /** open opens the WebSocket, and hears it from then on. */
  #open(url: string, protocols: string[]): Promise<void> {
    return new Promise((resolve, reject) => {
      let ws: WebSocketLike
      try {
        ws = this.#ws = new this.env.WebSocket(url, protocols)
      } catch (cause) { // the URL, a subprotocol or the page's policy forbid it: they will again
        throw new FinalError('oneport: no WebSocket can be made', { cause })
      }
      let opened = false
      ws.binaryType = 'arraybuffer'
      ws.onopen = () => {
        opened = true
        if (protocols.includes(inBandName)) {
          this.inBand = new InBand(this.env, this.tokens, this.token, (text) => this.#raw(text), this.owner.refresh)
        }
        resolve()
      }
      ws.onmessage = ({ data }) => this.#message(data)
      ws.onerror = () => undefined // onclose follows
      ws.onclose = ({ code, reason }) => {
        const err = new CloseError(code ?? 1006, String(reason ?? ''), opened)
        this.#ws = undefined
        reject(err)
        this.#end(err)
      }
    })
  }

  #message(data: string | ArrayBuffer): void {
    this.#heard()
    if (this.inBand?.take(data)) return
    if (this.owner.options.heartbeat?.isPong?.(data)) return
    this.owner.message(data)
  }

  /** send sends an application's message. */
  send(data: Data): void {
    if (reserved(data) && offersInBand(this.owner.options)) throw new TypeError('oneport: a message that begins with {"oneport": would be taken by the port')
    this.#raw(data)
  }

  #raw(data: Data): void {
    if (!this.#over) this.#ws?.send(data)
  }

  /** close begins the closing handshake; ended follows. */
  close(code: number, reason: string): void {
    this.env.clearTimeout(this.#beat)
    this.#ws?.close(code, reason)
  }

  /** drop ends it at once. Nothing follows. */
  drop(): void {
    this.forget()
    const ws = this.#ws
    if (ws === undefined) return
    try {
      if (ws.terminate) ws.terminate()
      else ws.close()
    } catch {
      // It was not open yet, which ends it as well.
    }
  }

  /** forget has nothing follow. */
  forget(): void {
    this.#over = true
    this.inBand?.stop()
    this.env.clearTimeout(this.#beat)
    this.#abort.abort(new Error('oneport: closed'))
    const ws = this.#ws
    if (ws === undefined) return
    ws.onopen = ws.onmessage = ws.onclose = null
    ws.onerror = () => undefined // `ws` throws errors that nobody hears
  }

  #end(err: unknown): void {
    if (this.#over) return
    this.drop()
    this.owner.ended(err)
  }

  /** heard begins the heartbeat anew. */
  #heard(): void {
    if (this.owner.options.heartbeat === undefined || !this.#connected || this.#over) return
    this.#pinged = false
    this.#arm(this.owner.options.heartbeat.every)
  }

  #arm(ms: number): void {
    this.env.clearTimeout(this.#beat)
    this.#due = this.env.now() + ms
    this.#beat = this.env.setTimeout(() => this.#silence(), ms)
  }

  /** silence is what follows when nothing came for as long as the heartbeat says. */
  #silence(): void {
    const { ping, within = 10_000 } = this.owner.options.heartbeat!
    // A timer that is late by seconds is that of a page that was frozen, or a machine that
    // slept: what came meanwhile is still to be handed over.
    const slept = this.env.now() - this.#due > 1000
    if (this.#pinged && !slept) return this.#end(new SilentError('oneport: the server has gone silent'))
    this.#pinged = true
    this.#arm(within)
    if (ping !== undefined) this.#raw(typeof ping === 'string' ? ping : ping())
  }
}
