// Charts by uPlot, in the page's colours.
/* global uPlot */

// color is what a custom property is just now, in this theme: a canvas knows no properties.
const probe = document.createElement('span')
probe.hidden = true
document.body.append(probe)
function color(name) {
  probe.style.color = `var(${name})`
  return getComputedStyle(probe).color
}

// within is the time that is shown: all there is, but at least a minute and at most span seconds.
function within(times, span) {
  const max = times.at(-1) ?? Date.now() / 1000
  return [max - Math.min(span, Math.max(60, max - (times[0] ?? max))), max]
}

// powers of ten of an axis: uPlot would draw nine lines between two of them.
function powers(_, __, min, max) {
  const list = []
  for (let e = Math.ceil(Math.log10(min) - 1e-9); e <= Math.log10(max) + 1e-9; e++) list.push(10 ** e)
  return list
}

const all = new Set()
const sync = uPlot.sync('time')

// chart draws lines over time: lines are { label, color, dash, fill, format }. span is how many seconds it shows.
export function chart(el, { lines, format, log = false, span, label }) {
  const stroke = (name) => () => color(name)
  const axis = { stroke: stroke('--muted'), font: '11px system-ui, sans-serif', ticks: { show: false }, grid: { stroke: stroke('--grid'), width: 1 } }
  const plot = new uPlot(
    {
      width: Math.max(120, el.clientWidth),
      height: el.clientHeight,
      pxAlign: false,
      padding: [6, 12, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: sync.key },
        drag: { x: false, y: false },
        points: { size: 6 },
        y: false,
      },
      scales: {
        x: { time: true, range: (u) => within(u.data?.[0] ?? [], span) },
        y: log
          ? { distr: 3, range: (u, min, max) => (min === null || min === undefined ? [1e-3, 1] : uPlot.rangeLog(Math.max(min, 1e-5), Math.max(max, 1e-4), 10, true)) }
          : { range: (u, min, max) => [0, Math.max(1, (max ?? 1) * 1.15)] },
      },
      axes: [
        { ...axis, size: 20, space: 70, values: (_, at, __, ___, step) => at.map((t) => new Date(t * 1000).toLocaleTimeString('en-GB').slice(0, step < 60 ? 8 : 5)) },
        { ...axis, size: 50, gap: 4, space: 26, ...(log && { splits: powers }), values: (_, list) => list.map((v) => (v === null ? '' : format(v))) },
      ],
      series: [
        {},
        ...lines.map((l) => ({
          label: l.label,
          stroke: stroke(l.color),
          width: 1.6,
          dash: l.dash,
          fill: l.fill && stroke(l.fill),
          spanGaps: false,
          points: { show: false },
        })),
      ],
      hooks: {
        setCursor: [
          (u) => {
            const i = u.cursor.idx
            if (i === null || i === undefined || u.cursor.left < 0) return label(null)
            label({ at: u.data[0][i], values: u.data.slice(1).map((line) => line[i]) })
          },
        ],
      },
    },
    [[], ...lines.map(() => [])],
    el,
  )
  plot.root.setAttribute('aria-hidden', 'true') // the numbers beside it say it
  const fit = new ResizeObserver(() => {
    const { clientWidth: width, clientHeight: height } = el
    if (width > 0 && (Math.abs(width - plot.width) > 1 || height !== plot.height)) plot.setSize({ width, height })
  })
  fit.observe(el)
  all.add(plot)
  return plot
}

// repaint is for another theme.
export const repaint = () => all.forEach((plot) => plot.redraw(false, true))
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint)
