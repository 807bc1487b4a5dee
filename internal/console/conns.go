package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// Query is what to list.
type Query struct {
	Filter *adminv1.Filter
	// Sort is as the API has it; "" means the oldest first.
	Sort string
	// Limit bounds the list, at most 1000. 0 means 100.
	Limit int
	// JSON prints the API's answers.
	JSON bool
	// Width is that of the terminal; 0 cuts no line.
	Width int
}

// answerTime is how long an answer of the API is waited for: it stands on this machine, or near.
const answerTime = 10 * time.Second

// List prints the connections once.
func (c *Client) List(ctx context.Context, w io.Writer, q Query) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	res, err := c.api.ListConnections(c.with(ctx), &adminv1.ListConnectionsRequest{Filter: q.Filter, Sort: q.Sort, Limit: int32(q.Limit)})
	if err != nil {
		return c.explain(err)
	}
	if q.JSON {
		return printJSON(w, res, true)
	}
	return printConns(w, res.GetConnections(), int(res.GetTotal()), q.Width)
}

// Watch prints them again and again, until ctx ends or the port. On a terminal (Width) each
// list takes the place of the one before; JSON is a line each.
func (c *Client) Watch(ctx context.Context, w io.Writer, q Query, every time.Duration) error {
	stream, err := c.api.WatchConnections(c.with(ctx), &adminv1.WatchConnectionsRequest{
		Filter: q.Filter, Sort: q.Sort, Limit: int32(q.Limit), Every: durationpb.New(every),
	})
	for err == nil {
		var res *adminv1.WatchConnectionsResponse
		if res, err = stream.Recv(); err != nil {
			break
		}
		if q.JSON {
			err = printJSON(w, res, false)
			continue
		}
		if q.Width > 0 {
			_, _ = io.WriteString(w, clearScreen) // the next write says whether it works
		}
		err = printConns(w, res.GetConnections(), int(res.GetTotal()), q.Width)
		if q.Width == 0 && err == nil {
			_, err = fmt.Fprintln(w)
		}
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil || status.Code(err) == codes.Canceled {
		return nil //nolint:nilerr // the port has ended, or who looks has left
	}
	if _, rpc := status.FromError(err); !rpc {
		return err
	}
	return c.explain(err)
}

// printJSON prints a message by the names of the .proto.
func printJSON(w io.Writer, m proto.Message, multiline bool) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true, Multiline: multiline}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, escaped(b))
	return err
}

func printConns(w io.Writer, list []*adminv1.Connection, total, width int) error {
	columns := []column{
		{"ID", false},
		{"REMOTE", false},
		{"KIND", false},
		{"STATE", false},
		{"AGE", true},
		{"IN", true},
		{"OUT", true},
		{"CALLS", true},
		{"WHO", false},
		{"WHAT", false},
	}
	rows := make([][]string, 0, len(list))
	for _, c := range list {
		rows = append(rows, []string{
			c.GetId(), c.GetRemote(), c.GetKind(), c.GetState(), age(c), size(float64(c.GetBytesIn())), size(float64(c.GetBytesOut())),
			fmt.Sprint(c.GetOpenCalls()), who(c), what(c),
		})
	}
	lines := table(columns, rows, width)
	if total != len(list) {
		lines = append(lines, fmt.Sprintf("%d of %d connections", len(list), total))
	} else {
		lines = append(lines, fmt.Sprintf("%d connections", total))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func age(c *adminv1.Connection) string { return ago(time.Since(c.GetAccepted().AsTime())) }

// who is whom calls of a connection are made for: a name, and how many others there are.
func who(c *adminv1.Connection) string {
	names := make(map[string]bool)
	first := ""
	for _, call := range c.GetCalls() {
		if id := call.GetIdentity(); id != nil {
			names[id.GetIssuer()+" "+id.GetSubject()] = true
			if first == "" {
				first = id.GetSubject()
			}
		}
	}
	switch {
	case len(names) > 1:
		return fmt.Sprintf("%s +%d", first, len(names)-1)
	case first != "":
		return first
	case c.GetTls().GetClientSubject() != "":
		return c.GetTls().GetClientSubject()
	}
	return "-"
}

// what is the oldest call of a connection, and where it goes.
func what(c *adminv1.Connection) string {
	if len(c.GetCalls()) == 0 {
		return "-"
	}
	call := c.GetCalls()[0]
	text := call.GetProtocol() + " " + call.GetPath()
	if call.GetProtocol() == "http" {
		text = call.GetMethod() + " " + call.GetPath()
	}
	if up := call.GetUpstream(); up != "" {
		text += " > " + up
	}
	return text
}

// KillRequest says what Kill is to end: one of ID, Subject and Upstream.
type KillRequest struct {
	ID              string
	Issuer, Subject string
	Upstream        string
	// Revoke refuses the credentials of Subject for so long. 0 does not.
	Revoke time.Duration
}

// Kill ends a connection, or calls, and says how many.
func (c *Client) Kill(ctx context.Context, w io.Writer, k KillRequest) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req := new(adminv1.KillRequest)
	switch {
	case k.ID != "":
		req.What = &adminv1.KillRequest_Connection{Connection: k.ID}
	case k.Subject != "":
		req.What = &adminv1.KillRequest_Identity{Identity: &adminv1.KillIdentity{Subject: k.Subject, Issuer: k.Issuer}}
	default:
		req.What = &adminv1.KillRequest_Upstream{Upstream: k.Upstream}
	}
	if k.Revoke != 0 {
		req.Revoke = durationpb.New(k.Revoke)
	}
	res, err := c.api.Kill(c.with(ctx), req)
	if err != nil {
		return c.explain(err)
	}
	_, err = fmt.Fprintf(w, "%d connections cut off, %d calls ended\n", res.GetConnections(), res.GetCalls())
	return err
}

// Revocations prints whose credentials are refused.
func (c *Client) Revocations(ctx context.Context, w io.Writer, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	res, err := c.api.ListRevocations(c.with(ctx), new(adminv1.ListRevocationsRequest))
	if err != nil {
		return c.explain(err)
	}
	if asJSON {
		return printJSON(w, res, true)
	}
	rows := make([][]string, 0, len(res.GetRevocations()))
	for _, r := range res.GetRevocations() {
		ends := "never"
		if r.GetUntil() != nil {
			ends = "in " + ago(time.Until(r.GetUntil().AsTime()))
		}
		rows = append(rows, []string{r.GetIssuer(), r.GetSubject(), ago(time.Since(r.GetAt().AsTime())), ends})
	}
	lines := table([]column{{"ISSUER", false}, {"SUBJECT", false}, {"SINCE", true}, {"ENDS", false}}, rows, 0)
	_, err = fmt.Fprintf(w, "%s\n%d revocations\n", strings.Join(lines, "\n"), res.GetTotal())
	return err
}

// Unrevoke lifts a revocation.
func (c *Client) Unrevoke(ctx context.Context, w io.Writer, issuer, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := c.api.Unrevoke(c.with(ctx), &adminv1.UnrevokeRequest{Issuer: issuer, Subject: subject}); err != nil {
		return c.explain(err)
	}
	_, err := fmt.Fprintf(w, "%s of %s is no longer revoked\n", Clean(subject), Clean(issuer))
	return err
}
