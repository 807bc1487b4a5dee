package telemetry

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// timed puts a histogram of times. buckets counts those up to each of bounds, and at its end all.
func (s *scrape) timed(name string, bounds []time.Duration, buckets []uint64, sum time.Duration, labels ...string) {
	s.to <- s.classic(name, seconds(bounds), buckets, sum.Seconds(), labels)
}

func seconds(bounds []time.Duration) []float64 {
	list := make([]float64, len(bounds))
	for i, b := range bounds {
		list[i] = b.Seconds()
	}
	return list
}

func (s *scrape) classic(name string, bounds []float64, buckets []uint64, sum float64, labels []string) prometheus.Metric {
	upTo := make(map[float64]uint64, len(bounds))
	for i, b := range bounds {
		upTo[b] = buckets[i]
	}
	desc := s.families[name].desc
	metric, err := prometheus.NewConstHistogram(desc, buckets[len(bounds)], sum, upTo, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return metric
}

// nativeSchema is that of protocols.CallStats.Native: eight buckets for each doubling.
const nativeSchema = 3

// both puts a histogram of times as a classic and a native one: which of them a server of
// Prometheus takes, it decides.
func (s *scrape) both(name string, bounds []time.Duration, buckets []uint64, native map[int]uint64, sum time.Duration, labels ...string) {
	desc := s.families[name].desc
	positive := make(map[int]int64, len(native))
	for i, n := range native {
		positive[i] = int64(n)
	}
	count := buckets[len(buckets)-1]
	exp, err := prometheus.NewConstNativeHistogram(desc, count, sum.Seconds(), positive, nil, 0, nativeSchema, 0, time.Time{}, labels...)
	if err != nil {
		s.to <- prometheus.NewInvalidMetric(desc, err)
		return
	}
	s.to <- twofold{exp, s.classic(name, seconds(bounds), buckets, sum.Seconds(), labels)}
}

// twofold is a native histogram with the buckets of a classic one.
type twofold struct {
	prometheus.Metric
	classic prometheus.Metric
}

func (t twofold) Write(out *dto.Metric) error {
	if err := t.Metric.Write(out); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	var old dto.Metric
	if err := t.classic.Write(&old); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	out.GetHistogram().Bucket = old.GetHistogram().GetBucket()
	return nil
}
