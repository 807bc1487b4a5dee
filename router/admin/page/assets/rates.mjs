// Rates and percentiles out of counters that only grow. Nothing here knows a browser.

// difference of two values of a counter; null if it has begun anew in between.
export function difference(older, newer) {
  if (older === undefined || newer === undefined || older === null || newer === null) return null
  return newer >= older ? newer - older : null
}

// rate is how much a counter has grown in a second, of two samples { at, ... } whose at is in
// seconds; null if they say nothing.
export function rate(older, newer, of) {
  if (!older || !newer || newer.at <= older.at) return null
  const d = difference(of(older), of(newer))
  return d === null ? null : d / (newer.at - older.at)
}

// grown are the counts of a histogram's buckets between two samples of the same bounds; null if it
// has begun anew. A histogram is { bounds: seconds that rise, counts: one more, each of its bucket
// alone; the last is of what took longer than the last bound }.
export function grown(older, newer) {
  if (!older || !newer || older.counts.length !== newer.counts.length) return null
  const counts = []
  for (let i = 0; i < newer.counts.length; i++) {
    if (older.bounds[i] !== newer.bounds[i]) return null
    const d = difference(older.counts[i], newer.counts[i])
    if (d === null) return null
    counts.push(d)
  }
  return { bounds: newer.bounds, counts }
}

export const sum = (list) => list.reduce((a, b) => a + b, 0)

// percentile is where the share q of a histogram ends, in seconds: by a straight line within its
// bucket, as Prometheus' histogram_quantile does. What took longer than the last bound is taken for
// that bound. null if there is nothing.
export function percentile(histogram, q) {
  if (!histogram) return null
  const { bounds, counts } = histogram
  const wanted = q * sum(counts)
  if (wanted === 0) return null
  let before = 0
  for (let i = 0; i < bounds.length; i++) {
    if (before + counts[i] >= wanted) {
      const low = i === 0 ? 0 : bounds[i - 1]
      return low + (bounds[i] - low) * ((wanted - before) / counts[i])
    }
    before += counts[i]
  }
  return bounds.at(-1) ?? null
}

// perBucket makes counts of each bucket alone out of those of Prometheus, which count what is below
// as well.
export const perBucket = (cumulative) => cumulative.map((n, i) => (i === 0 ? n : n - cumulative[i - 1]))

// Samples keeps those of the last while. A sample is { at: seconds, started, ... }; when another
// process answers all counters begin anew, and so does it.
export class Samples {
  constructor(seconds) {
    this.seconds = seconds
    this.list = []
  }

  get last() {
    return this.list.at(-1)
  }

  add(sample) {
    const { last } = this
    if (last && (last.started !== sample.started || sample.at < last.at)) this.list = []
    this.list.push(sample)
    while (this.list.length > 2 && this.list[1].at <= sample.at - this.seconds) this.list.shift()
  }

  // back is the youngest sample that is at least so many seconds older than the last, or the
  // oldest there is; undefined if there is none but the last.
  back(seconds) {
    const { last } = this
    if (this.list.length < 2) return undefined
    for (let i = this.list.length - 2; i >= 0; i--) {
      if (this.list[i].at <= last.at - seconds) return this.list[i]
    }
    return this.list[0]
  }

  rate(seconds, of) {
    return rate(this.back(seconds), this.last, of)
  }

  // histogram is what has come in the last seconds; with fewer than some in those, in the longest
  // time that is known.
  histogram(seconds, of, few = 20) {
    const read = (s) => (s ? of(s) : undefined)
    const short = grown(read(this.back(seconds)), read(this.last))
    if (short && sum(short.counts) >= few) return { ...short, seconds }
    const long = grown(read(this.back(this.seconds)), read(this.last))
    return long && { ...long, seconds: this.last.at - this.back(this.seconds).at }
  }
}

// Track keeps points of lines for a chart: the newest so many. A point's values may be null: a gap.
export class Track {
  constructor(lines, most) {
    this.most = most
    this.data = Array.from({ length: lines + 1 }, () => [])
  }

  add(at, ...values) {
    ;[at, ...values].forEach((v, i) => {
      const line = this.data[i]
      line.push(v ?? null)
      if (line.length > this.most) line.shift()
    })
  }
}
