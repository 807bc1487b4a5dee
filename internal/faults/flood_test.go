//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// flooded is what came of a flood.
type flooded struct {
	Offered int            // calls begun in each second, on the average
	Late    int            // calls that were not begun, for too many were open
	Served  int            // calls that were let in, and succeeded
	Took    time.Duration  // all of it
	Refused map[string]int // calls by code and text
}

// floodMost is how many calls of a flood are open at most.
const floodMost = 4000

// beFlood calls at a steady rate, over eight connections, whatever comes of it.
func beFlood(ctx context.Context, ready func(...any)) (any, error) {
	trust, err := trusting(os.Getenv(envCA))
	if err != nil {
		return nil, err
	}
	var conns []echov1.EchoClient
	for range 8 {
		cc, err := grpc.NewClient(os.Getenv(envAddr), grpc.WithTransportCredentials(credentials.NewTLS(trust)))
		if err != nil {
			return nil, err
		}
		defer cc.Close()
		conns = append(conns, echov1.NewEchoClient(cc))
	}
	f := flooded{Refused: map[string]int{}}
	var mu sync.Mutex
	var work sync.WaitGroup
	slots := make(chan struct{}, floodMost)
	begun, n := time.Now(), 0
	ready("flooding")
	for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; {
		for ; n < int(time.Since(begun).Seconds()*float64(offered)); n++ {
			select {
			case slots <- struct{}{}:
			default:
				f.Late++
				continue
			}
			id := n
			work.Go(func() {
				defer func() { <-slots }()
				err := floodCall(conns[id%len(conns)], id)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					f.Served++
					return
				}
				st := status.Convert(err)
				f.Refused[st.Code().String()+": "+st.Message()]++
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	f.Took = time.Since(begun)
	f.Offered = int(float64(n-f.Late) / f.Took.Seconds())
	work.Wait()
	return f, nil
}

func floodCall(echo echov1.EchoClient, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch n / 8 % 6 { // on all connections alike
	case 4:
		s, err := echo.ServerStream(ctx, &echov1.ServerStreamRequest{Message: "more"})
		for err == nil {
			_, err = s.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case 5:
		s, err := echo.ClientStream(ctx)
		if err == nil {
			_, err = s.CloseAndRecv()
		}
		return err
	default:
		_, err := echo.Unary(ctx, &echov1.UnaryRequest{Message: "more"})
		return err
	}
}

func (f *flooded) String() string {
	s := fmt.Sprintf("%d calls/s for %v; %d served (%.0f/s)", f.Offered, f.Took.Round(time.Second), f.Served, float64(f.Served)/f.Took.Seconds())
	for _, why := range slices.Sorted(maps.Keys(f.Refused)) {
		s += fmt.Sprintf("; %d %q", f.Refused[why], why)
	}
	return s
}

// check looks whether the flood was one, and was answered in the right words.
func (f *flooded) check(t *testing.T) {
	t.Helper()
	right := []string{
		codes.ResourceExhausted.String() + ": too many calls",
		codes.Unavailable.String() + ": too many calls at a time",
		codes.Unavailable.String() + ": overloaded",
	}
	for _, why := range right {
		if f.Refused[why] == 0 {
			t.Errorf("nobody was refused with %q", why)
		}
	}
	for why, n := range f.Refused {
		if !slices.Contains(right, why) {
			t.Errorf("%d calls ended with %q", n, why)
		}
	}
	if f.Offered < 5*capacity/2 {
		t.Errorf("%d calls a second were no flood, of %d that can be served", f.Offered, capacity)
	}
	// Machines that are busy with others serve fewer.
	served := float64(f.Served) / f.Took.Seconds()
	if most := 1.1 * inFlight / callFor.Seconds(); served < 0.6*float64(capacity) || served > most {
		t.Errorf("%.0f calls a second were served, and %d can be, %.0f in no case", served, capacity, most)
	}
}
