package ws

import (
	"strconv"
	"sync/atomic"
)

// ending is why a tunnel has ended.
type ending uint8

const (
	endLost ending = iota // raw: without a close frame, whoever it was
	endClosed
	endDrain
	endClientLost
	endClientDead
	endClientProtocol
	endClientInvalid
	endClientTooBig
	endClientTooMany
	endUpstreamLost
	endUpstreamDead
	endUpstreamProtocol
	endUpstreamInvalid
	endUpstreamTooBig
	numEndings
)

var endings = [numEndings]string{
	"lost", "closed", "drain",
	"client_lost", "client_dead", "client_protocol", "client_invalid", "client_too_big", "client_too_many",
	"upstream_lost", "upstream_dead", "upstream_protocol", "upstream_invalid", "upstream_too_big",
}

// endingOf is that of a violation.
func endingOf(code int, upstream bool) ending {
	switch {
	case code == CloseTooBig && upstream:
		return endUpstreamTooBig
	case code == CloseTooBig:
		return endClientTooBig
	case code == CloseInvalidData && upstream:
		return endUpstreamInvalid
	case code == CloseInvalidData:
		return endClientInvalid
	case code == CloseTryAgainLater:
		return endClientTooMany
	case upstream:
		return endUpstreamProtocol
	}
	return endClientProtocol
}

// TunnelStats are counts of tunnels at one moment. They are among those of Stats too.
type TunnelStats struct {
	Open int // now
	// Closed counts those that ended by close code: "1000" to "1015", of which 1005 means
	// a close frame without a code and 1006 none at all, or "other".
	Closed map[string]int64
	// Ended counts them by reason: "closed" by one of both, "drain", or what was wrong, and
	// with whom: lost (gone without a close frame), dead (no answer to a ping), protocol,
	// invalid, too_big or too_many, with "client_" or "upstream_" before it. Of a raw tunnel
	// it is not known who was lost.
	Ended map[string]int64
}

// TunnelStats returns the counts. What never occurred is left out.
func (s *Server) TunnelStats() TunnelStats {
	st := TunnelStats{Open: int(s.tunnels.Load()), Closed: map[string]int64{}, Ended: map[string]int64{}}
	for i := range s.ends.codes {
		label := "other"
		if i > 0 {
			label = strconv.Itoa(codeAt(i))
		}
		if n := s.ends.codes[i].Load(); n != 0 {
			st.Closed[label] = n
		}
	}
	for i := range s.ends.reasons {
		if n := s.ends.reasons[i].Load(); n != 0 {
			st.Ended[endings[i]] = n
		}
	}
	return st
}

// tunnelEnds counts how tunnels end.
type tunnelEnds struct {
	codes   [closeCodes]atomic.Int64
	reasons [numEndings]atomic.Int64
}

// endTunnel takes a tunnel out of account.
func (s *Server) endTunnel(t session, code int, how ending) {
	s.ends.codes[codeIndex(code)].Add(1)
	s.ends.reasons[how].Add(1)
	s.tunnels.Add(-1)
	s.remove(t, code)
}
