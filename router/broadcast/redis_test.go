package broadcast_test

import "go.uber.org/goleak"

// ignored are goroutines of centrifuge's that nobody waits for: a node's last ones end within
// a second of its end.
func ignored() []goleak.Option {
	const of = "github.com/centrifugal/centrifuge"
	return []goleak.Option{goleak.IgnoreAnyFunction(of + ".(*Node).unsubscribeFromBrokerWhenEmpty.func1")}
}
