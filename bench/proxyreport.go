package main

import (
	"fmt"
	"strings"
)

// table writes how the edges compare, for people.
func (p *proxied) table(b *strings.Builder) {
	for _, v := range p.Versions {
		fmt.Fprintf(b, "%s\n", v)
	}
	if len(p.CPU) > 0 {
		p.cpu(b)
	}
	for _, m := range p.Memory {
		fmt.Fprintf(b, "\nMemory of each edge per connection, %d of them after %v, %d rounds:\n\n", m.Each, edgeRest, m.Rounds)
		figures(b, []*figure{m}, "KiB")
	}
}

func (p *proxied) cpu(b *strings.Builder) {
	b.WriteString("\nCPU of each edge per operation, median of the rounds (least - most):\n\n")
	figures(b, p.CPU, "us")
	fmt.Fprintf(b, "\nRounds: %d; operations per round and edge: ", p.CPU[0].Rounds)
	for i, f := range p.CPU {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(b, "%s %d", f.Name, f.Each)
	}
	b.WriteString(".\n")
	if rounds := p.CPU[0].Rounds; rounds < leastRounds {
		fmt.Fprintf(b, "That is too few to be recorded: %d at least.\n", leastRounds)
	}
}

// leastRounds is how many rounds a figure needs that others are to believe.
const leastRounds = 5

// figures writes a row for each.
func figures(b *strings.Builder, list []*figure, unit string) {
	rows := [][]string{{"", onOneport, onNginx, onHAProxy, "ratio", "to", "asked", ""}}
	for _, f := range list {
		if f.Err != "" {
			rows = append(rows, []string{f.Name, "FAILED", "", "", "", "", "", strings.ReplaceAll(f.Err, "\n", "; ")})
			continue
		}
		row := []string{f.Name}
		for _, name := range []string{onOneport, onNginx, onHAProxy} {
			cell := "cannot do it"
			if s, ok := f.Edges[name]; ok {
				cell = fmt.Sprintf("%.1f %s (%.1f - %.1f)", s.Median, unit, s.Min, s.Max)
			}
			row = append(row, cell)
		}
		ratio, to, asked, met := "-", "-", "-", ""
		if f.Better != "" {
			ratio, to = fmt.Sprintf("%.2f (%.2f - %.2f)", f.Ratio.Median, f.Ratio.Min, f.Ratio.Max), f.Better
		}
		if f.Most > 0 {
			asked, met = fmt.Sprintf("<= %.2f", f.Most), verdict(f.Met)
			if unit == "KiB" {
				asked = fmt.Sprintf("<= %.0f %s", f.Most, unit)
			}
		}
		rows = append(rows, append(row, ratio, to, asked, met))
	}
	writeRows(b, rows)
}
