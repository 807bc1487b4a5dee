// Channels of oneport's broadcast, one way, over its /broadcast/stream: each
// publication once and in order, also those of the time without a connection.
import { Emitter } from './emitter.js'
import { type Socket, type SocketOptions, type StateEvent } from './socket.js'

/** Where a channel stands. */
export interface Position {
  offset: number
  epoch: string
}

/** What comes first on each connection, for each channel. */
export interface SubscribedEvent {
  channel: string
  /** Undefined for a channel without a history. */
  position: Position | undefined
  /** All that was published since the position that was asked for has come, or follows. */
  recovered: boolean
  /** Publications may have been missed: what is shown of the channel has to be asked for anew. Never of the first time, unless `since` was given. */
  lost: boolean
}

export interface Publication {
  channel: string
  /** 0 for a channel without a history. */
  offset: number
  data: unknown
  tags?: Record<string, string>
  publisher?: unknown
}

export interface Presence {
  channel: string
  join: boolean
  client: unknown
}

export interface SubscriptionEvents {
  state: StateEvent
  subscribed: SubscribedEvent
  publication: Publication
  presence: Presence
}

export interface SubscriptionOptions extends Omit<SocketOptions, 'onConnect' | 'heartbeat' | 'protocols'> {
  /** Where the stream is; `/broadcast/stream` unless given. */
  path?: string
  /** Positions to begin from, by channel, as `positions` gave them. */
  since?: Record<string, Position>
}

/** Subscription is of 1 to 16 channels, for as long as it is open. */
export class Subscription extends Emitter<SubscriptionEvents> {
  readonly socket: Socket
  readonly #at = new Map<string, Position>()
  readonly #seen: Set<string> // channels that something is known of

  /** Use Client.subscribe. */
  constructor(
    readonly channels: readonly string[],
    options: SubscriptionOptions,
    socket: (path: () => string, options: SocketOptions) => Socket,
  ) {
    super()
    if (channels.length < 1 || channels.length > 16 || new Set(channels).size !== channels.length) {
      throw new RangeError('oneport: a subscription has 1 to 16 channels, each once')
    }
    const { path = '/broadcast/stream', since = {}, ...rest } = options
    for (const channel of channels) {
      const at = since[channel]
      if (at !== undefined) this.#at.set(channel, at)
    }
    this.#seen = new Set(this.#at.keys())
    this.socket = socket(() => this.#target(path), { ...rest, again: rest.again ?? true })
    this.socket.on('state', (event) => this.emit('state', event))
    this.socket.on('message', (data) => this.#message(data))
  }

  /** open begins, and goes on from where it was after close. */
  open(): this {
    this.socket.open()
    return this
  }

  close(): void {
    this.socket.close()
  }

  /** positions are where the channels stand, to be kept and given as `since`. */
  get positions(): Record<string, Position> {
    return Object.fromEntries(this.#at)
  }

  #target(path: string): string {
    const query = new URLSearchParams(this.channels.map((channel) => ['channel', channel]))
    const since = this.channels.map((channel) => {
      const at = this.#at.get(channel)
      return at === undefined ? '' : `${at.offset}:${at.epoch}`
    })
    if (since.some(Boolean)) query.set('since', since.join(','))
    return `${path}${path.includes('?') ? '&' : '?'}${query}`
  }

  #message(data: string | ArrayBuffer): void {
    let message: any
    try {
      message = typeof data === 'string' ? JSON.parse(data) : undefined
    } catch {
      // Said below.
    }
    const channel = message?.channel
    if (!this.channels.includes(channel)) return this.socket.fail('oneport: this is no stream of the channels')
    if (message.subscribed) this.#subscribed(channel, message.subscribed)
    else if (message.join ?? message.leave) this.emit('presence', { channel, join: message.join !== undefined, client: message.join ?? message.leave })
    else if ('data' in message) this.#publication(channel, message)
  }

  #subscribed(channel: string, s: { offset?: number; epoch?: string; recovered?: boolean }): void {
    const recovered = s.recovered === true
    const before = this.#at.get(channel)
    const again = this.#seen.has(channel)
    this.#seen.add(channel)
    if (!s.epoch) this.#at.delete(channel)
    else {
      let offset = s.offset ?? 0
      // What has come once is not handed over again.
      if (before?.epoch === s.epoch) offset = Math.max(offset, before.offset)
      this.#at.set(channel, { offset, epoch: s.epoch })
    }
    this.emit('subscribed', { channel, position: this.#at.get(channel), recovered, lost: again && !recovered })
  }

  #publication(channel: string, m: { offset?: number; data: unknown; tags?: Record<string, string>; publisher?: unknown }): void {
    const at = this.#at.get(channel)
    const offset = m.offset ?? 0
    if (at !== undefined && offset > 0) {
      if (offset <= at.offset) return // it has come before
      this.#at.set(channel, { ...at, offset })
    }
    this.emit('publication', {
      channel,
      offset,
      data: m.data,
      ...(m.tags !== undefined && { tags: m.tags }),
      ...(m.publisher !== undefined && { publisher: m.publisher }),
    })
  }
}
