package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything that was measured, and where.
type report struct {
	Date        string           `json:"date"`
	Machine     string           `json:"machine"`
	Command     string           `json:"command"`
	Comparisons []*comparison    `json:"comparisons,omitempty"`
	Memory      []*memory        `json:"memory,omitempty"`
	Edges       *proxied         `json:"edges,omitempty"`
	Guards      []*surcharge     `json:"guards,omitempty"`
	Telemetry   []*telemetryCost `json:"telemetry,omitempty"`
	Fans        *fans            `json:"fans,omitempty"`
}

func newReport(args string) *report {
	return &report{
		Date:    time.Now().UTC().Format(time.DateOnly),
		Machine: fmt.Sprintf("%s, %d cores, %s/%s, %s", cpuModel(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()),
		Command: strings.TrimSpace("go run -tags nomsgpack ./bench " + args),
	}
}

// cpuModel is the processor's name where Linux tells it.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown CPU"
}

// table is the report for people, in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s\n", r.Command, r.Machine, r.Date)
	if len(r.Comparisons) > 0 {
		b.WriteString("\nServer CPU per operation:\n\n")
		rows := [][]string{{"", "own port", "the port", "ratio", "95 %", "control", "95 %", "asked", ""}}
		for _, c := range r.Comparisons {
			asked, met := "-", ""
			if c.Most > 0 {
				asked, met = fmt.Sprintf("low <= %.2f", c.Most), verdict(c.Met)
				if c.Median {
					asked = fmt.Sprintf("<= %.2f", c.Most)
				}
			}
			rows = append(rows, []string{
				c.Name, fmt.Sprintf("%.1f us", c.Own), fmt.Sprintf("%.1f us", c.Port),
				fmt.Sprintf("%.3f", c.Ratio.Median), fmt.Sprintf("%.3f - %.3f", c.Ratio.Low, c.Ratio.High),
				fmt.Sprintf("%.3f", c.Control.Median), fmt.Sprintf("%.3f - %.3f", c.Control.Low, c.Control.High),
				asked, met,
			})
		}
		writeRows(&b, rows)
		fmt.Fprintf(&b, "\n%d rounds; operations per round and server: ", r.Comparisons[0].Rounds)
		for i, c := range r.Comparisons {
			if i > 0 {
				b.WriteString("; ")
			}
			fmt.Fprintf(&b, "%s %d", c.Name, c.OpsEach)
		}
		b.WriteString(".\n")
	}
	for _, m := range r.Memory {
		fmt.Fprintf(&b, "\nMemory of the server per idle %s connection over TLS, %d of them:\n\n", m.Name, m.Sockets)
		rows := [][]string{{"", "resident, garbage given back", "as it is", "HeapInuse", "StackInuse", "goroutines"}}
		for _, f := range []struct {
			name string
			footprint
		}{{"own port (" + m.OwnName + ")", m.Own}, {"the port", m.Port}} {
			rows = append(rows, []string{
				f.name, kib(f.RSS), kib(f.RSSAsItIs), kib(f.Heap), kib(f.Stack), fmt.Sprintf("%.1f", f.Goroutines),
			})
		}
		writeRows(&b, rows)
		fmt.Fprintf(&b, "\nratio %.2f with garbage given back, %.2f as it is, asked <= %.2f: %s\n", m.Ratio, m.AsItIs, m.Most, verdict(m.Met))
	}
	if r.Edges != nil {
		r.Edges.table(&b)
	}
	if len(r.Guards) > 0 {
		surcharges(&b, r.Guards)
	}
	if len(r.Telemetry) > 0 {
		telemetryRows(&b, r.Telemetry)
	}
	if r.Fans != nil {
		r.Fans.table(&b)
	}
	return b.String()
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "NOT MET"
}

func kib(bytes float64) string { return fmt.Sprintf("%.1f KiB", bytes/1024) }

// writeRows writes a Markdown table whose first row is its head.
func writeRows(b *strings.Builder, rows [][]string) {
	tw := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0) // it writes to memory: no errors
	for i, row := range rows {
		fmt.Fprintf(tw, "| %s\t|\n", strings.Join(row, "\t| "))
		if i == 0 {
			fmt.Fprintf(tw, "|-%s|\n", strings.Repeat("\t|-", len(row)-1))
		}
	}
	_ = tw.Flush()
}
