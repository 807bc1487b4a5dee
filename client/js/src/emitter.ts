/** Emitter calls listeners, in the order in which they came. */
export class Emitter<Events> {
  readonly #listeners = new Map<keyof Events, Set<(event: any) => void>>()

  /** on has f called with each event of a kind from now on. It gives what ends that. */
  on<K extends keyof Events>(kind: K, f: (event: Events[K]) => void): () => void {
    let all = this.#listeners.get(kind)
    if (all === undefined) this.#listeners.set(kind, (all = new Set()))
    const set = all.add(f)
    return () => void set.delete(f)
  }

  /** emit calls the listeners. What one throws becomes an uncaught error, and is nobody else's trouble. */
  protected emit<K extends keyof Events>(kind: K, event: Events[K]): void {
    for (const f of [...(this.#listeners.get(kind) ?? [])]) {
      try {
        f(event)
      } catch (err) {
        queueMicrotask(() => {
          throw err
        })
      }
    }
  }
}
