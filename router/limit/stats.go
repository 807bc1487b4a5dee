package limit

import (
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

const tooManyAtATime = "too many calls at a time"

// outcome is what became of a call.
type outcome uint8

const (
	admitted outcome = iota
	overRate
	sharedRate
	queueFull
	waitedTooLong
	tooSoon
	gone
	storeDown
	numOutcomes
)

var outcomes = [numOutcomes]struct {
	name   string
	reason protocols.Reason
	text   string
}{
	admitted:      {name: "admitted"},
	overRate:      {"rate", protocols.ReasonTooMany, ""},
	sharedRate:    {"shared_rate", protocols.ReasonTooMany, ""},
	queueFull:     {"queue_full", protocols.ReasonOverloaded, tooManyAtATime},
	waitedTooLong: {"waited", protocols.ReasonOverloaded, tooManyAtATime},
	tooSoon:       {"deadline", protocols.ReasonOverloaded, tooManyAtATime},
	gone:          {"gone", protocols.ReasonOverloaded, tooManyAtATime},
	storeDown:     {"store_down", protocols.ReasonOverloaded, "calls cannot be counted"},
}

// retryOverloaded is when to try again after a refusal that does not say by itself.
const retryOverloaded = time.Second

func (o outcome) refusal(retry time.Duration) error {
	if outcomes[o].reason == protocols.ReasonOverloaded {
		retry = retryOverloaded
	}
	return &protocols.Refusal{Reason: outcomes[o].reason, Text: outcomes[o].text, RetryAfter: retry}
}

// Stats is what a limiter has done and holds.
type Stats struct {
	// Calls counts calls by what became of them, since the limiter was made: "admitted",
	// "rate" and "shared_rate" (over it, by this instance's count or that of all), "queue_full",
	// "waited" (as long as it may), "deadline" (its client would not have waited), "gone" (its client went),
	// "store_down". Every key is there.
	Calls map[string]uint64
	// InFlight are the calls that hold a place, Waiting those that want one.
	InFlight, Waiting int
	// Keys is how many callers' rates are remembered, Evicted how many were forgotten that
	// owed something: more callers than Options.Keys.
	Keys    int
	Evicted uint64
}

// Stats counts. It takes every shard's lock, one after the other.
func (l *Limiter) Stats() Stats {
	st := Stats{Calls: make(map[string]uint64, numOutcomes)}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for o := range outcomes {
			st.Calls[outcomes[o].name] += s.outcomes[o]
		}
		for _, g := range s.gates {
			st.InFlight += g.inFlight
			st.Waiting += g.waiting
		}
		st.Keys += len(s.table.entries)
		st.Evicted += s.table.evicted
		s.mu.Unlock()
	}
	return st
}
