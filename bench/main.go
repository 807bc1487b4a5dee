package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rounds  int
	sockets int
	only    string
	json    bool
	profile string
	oneport string
	row     string

	serve  string // this and what follows is set in the servers alone
	dir    string
	config string
	heap   bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 15, "rounds of each comparison; at least 11 for an interval worth its name")
	fs.IntVar(&o.sockets, "sockets", 9000, "connections for the comparisons of memory, and subscribers of the fan-out")
	fs.StringVar(&o.only, "only", "", "comma-separated: rest, grpc, ws, handshake, memory; or proxy, guards, telemetry, fanout, which are not among all; empty for all")
	fs.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	fs.StringVar(&o.profile, "profile", "", "directory for CPU and heap profiles of the servers; profiling costs some CPU itself")
	fs.StringVar(&o.row, "row", "", "only rows whose names contain this")
	fs.StringVar(&o.oneport, "oneport", "", "for proxy, guards and telemetry: the binary; empty builds it")
	fs.StringVar(&o.serve, "serve", "", "for the bench itself: be a server")
	fs.StringVar(&o.dir, "dir", "", "for the bench itself: where the certificates are")
	fs.StringVar(&o.config, "config", "", "for the bench itself: the edge's file")
	fs.BoolVar(&o.heap, "heap", false, "for the bench itself: prepare for a heap profile")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	for _, name := range o.selection() {
		if !slices.Contains([]string{"rest", "grpc", "ws", "handshake", "memory", "proxy", "guards", "telemetry", "fanout"}, name) {
			return nil, fmt.Errorf("-only %q: want rest, grpc, ws, handshake, memory, proxy, guards, telemetry, fanout", name)
		}
	}
	return &o, nil
}

func (o *options) selection() []string {
	return strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' })
}

func (o *options) selected(name string) bool {
	return o.only == "" && name != "proxy" && name != "guards" && name != "telemetry" && name != "fanout" || slices.Contains(o.selection(), name)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.serve != "" {
		return serve(ctx, o, stdin, stdout)
	}
	return measure(ctx, o, strings.Join(args, " "), stdout, stderr)
}

// measure runs what was asked for and prints it.
func measure(ctx context.Context, o *options, args string, stdout, stderr io.Writer) error {
	house, err := newHouse(stderr)
	if err != nil {
		return err
	}
	defer house.close()
	report := newReport(args)
	for _, w := range workloads() {
		if !o.selected(w.group) || !strings.Contains(w.name, o.row) {
			continue
		}
		fmt.Fprintf(stderr, "%s: %d rounds\n", w.name, o.rounds)
		c, err := house.compare(ctx, w, o)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		report.Comparisons = append(report.Comparisons, c)
	}
	if o.selected("memory") {
		for _, k := range idle() {
			if !strings.Contains(k.name, o.row) {
				continue
			}
			fmt.Fprintf(stderr, "memory, %s: %d connections\n", k.name, o.sockets)
			m, err := house.memory(ctx, k, o)
			if err != nil {
				return fmt.Errorf("memory, %s: %w", k.name, err)
			}
			report.Memory = append(report.Memory, m)
		}
	}
	var failed error
	if o.selected("proxy") {
		report.Edges, failed = house.edges(ctx, o)
		if report.Edges == nil {
			return failed
		}
	}
	if o.selected("guards") {
		guards, err := house.guards(ctx, o)
		if guards == nil {
			return errors.Join(failed, err)
		}
		report.Guards, failed = guards, errors.Join(failed, err)
	}
	if o.selected("telemetry") {
		list, err := house.telemetry(ctx, o)
		if list == nil {
			return errors.Join(failed, err)
		}
		report.Telemetry, failed = list, errors.Join(failed, err)
	}
	if o.selected("fanout") {
		fans, err := house.fanouts(ctx, o)
		if fans == nil {
			return errors.Join(failed, err)
		}
		report.Fans, failed = fans, errors.Join(failed, err)
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return errors.Join(enc.Encode(report), failed)
	}
	_, err = io.WriteString(stdout, report.table())
	return errors.Join(err, failed)
}
