// Numbers, sizes and times as people read them.

// count is 12, 1,234, 56,789, 123k or 1.2M.
export function count(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return '–'
  if (n < 100_000) return Math.round(n).toLocaleString('en')
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (n >= size * 0.9995) return `${(n / size).toFixed(n < size * 99.95 ? 1 : 0)}${unit}`
  }
  return `${n}`
}

// perSecond is a rate: with a decimal as long as that says something.
export function perSecond(n) {
  if (n === null || n === undefined) return '–'
  if (n === 0) return '0'
  if (n < 0.1) return '<0.1'
  return n < 9.95 ? n.toFixed(1) : count(n)
}

// seconds is a short time: 0.42 ms, 12 ms, 1.3 s, 4 min.
export function seconds(s) {
  if (s === null || s === undefined) return '–'
  const ms = s * 1000
  if (ms < 0.095) return `${Math.max(1, Math.round(ms * 1000))} µs`
  if (ms < 9.95) return `${ms.toFixed(ms < 0.995 ? 2 : 1)} ms`
  if (ms < 999.5) return `${Math.round(ms)} ms`
  if (s < 9.95) return `${s.toFixed(1)} s`
  if (s < 119.5) return `${Math.round(s)} s`
  return age(s)
}

// bytes is a size: 12 B, 3.4 KiB, 560 MiB.
export function bytes(n) {
  if (n === null || n === undefined) return '–'
  if (n < 1024) return `${Math.round(n)} B`
  let unit = -1
  do {
    n /= 1024
    unit++
  } while (n >= 1023.5 && unit < 4)
  return `${n.toFixed(n < 99.95 ? 1 : 0)} ${['KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}`
}

// age is a long time, of its two largest units: 12s, 3m 5s, 2h 10m, 4d 3h.
export function age(s) {
  s = Math.max(0, Math.floor(s))
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`
  return `${Math.floor(s / 86_400)}d ${Math.floor((s % 86_400) / 3600)}h`
}

// percent of a share: 0.2 %, 12 %.
export function percent(x) {
  if (x === null || x === undefined) return '–'
  if (x === 0) return '0 %'
  if (x < 0.001) return '<0.1 %'
  return `${(x * 100).toFixed(x < 0.0995 ? 1 : 0)} %`
}

// clock is a time of day, and the day too if that is another one.
export function clock(at, now = new Date()) {
  const time = at.toLocaleTimeString('en-GB')
  return at.toDateString() === now.toDateString() ? time : `${at.toLocaleDateString('en-CA')} ${time}`
}

// plural is "1 call", "2 calls".
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`
