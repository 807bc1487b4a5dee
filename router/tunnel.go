package router

import (
	"errors"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// validateTunnel says what is wrong with how a route's WebSockets are treated.
func (r *Route) validateTunnel() error {
	t := r.Tunnel
	switch {
	case r.WebSocket == "" && t != ws.Relay{}:
		return errors.New("it has Tunnel: that is for WebSocket alone")
	case t.Mode > ws.Raw:
		return errors.New("its tunnel has a mode that there is not")
	case t.Mode == ws.Raw && t != ws.Relay{Mode: ws.Raw}:
		return errors.New("its tunnel is raw, and has bounds: nobody would look at them")
	case t.MessageBytes < 0 || t.MessageRate < 0 || t.MessageBurst < 0 || t.ByteRate < 0 || t.ByteBurst < 0 || t.PongWait < 0:
		return errors.New("its tunnel has a bound below zero")
	case t.MessageBurst > 0 && t.MessageRate == 0:
		return errors.New("its tunnel has MessageBurst and no MessageRate")
	case t.ByteBurst > 0 && t.ByteRate == 0:
		return errors.New("its tunnel has ByteBurst and no ByteRate")
	}
	return nil
}
