package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// joinWait is how long a socket may stay without a name.
const joinWait = 10 * time.Second

// serveSocket is a person in the room: {"name":"Ann"} first, {"text":"hi"}
// then. What it says is answered by the room, to everybody, and what the room
// does not take by {"kind":"refused","text":"why"}, to it alone.
func (r *room) serveSocket(ctx context.Context, c *ws.Conn) error {
	via := protocols.CallFrom(ctx).Protocol.String()
	late := time.AfterFunc(joinWait, func() { c.Close(ws.ClosePolicy, "no name in time") })
	defer late.Stop()
	var in struct{ Name, Text string }
	if err := read(c, &in); err != nil {
		return err
	}
	late.Stop()
	name := in.Name
	leave, err := r.join(name, via, func(e event) bool {
		return c.Send(ws.Text, e.json) == nil // never waits; one that is too slow is closed with 1013
	})
	if err != nil {
		return &ws.CloseError{Code: ws.ClosePolicy, Reason: err.Error()}
	}
	defer leave()
	for {
		in.Text = ""
		if err := read(c, &in); err != nil {
			return err
		}
		if _, err := r.say(name, in.Text, via); err != nil {
			if err := refuse(c, err); err != nil {
				return err
			}
		}
	}
}

func refuse(c *ws.Conn, why error) error {
	b, err := json.Marshal(map[string]string{"kind": "refused", "text": why.Error()})
	if err != nil {
		return err
	}
	return c.Send(ws.Text, b)
}

// read reads a message of JSON.
func read(c *ws.Conn, into any) error {
	_, b, err := c.Read()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return &ws.CloseError{Code: ws.ClosePolicy, Reason: "not the JSON expected here"}
	}
	return nil
}
