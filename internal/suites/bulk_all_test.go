//go:build suites && bulk

package suites

// bulkSize is how much goes through in each run of TestBulk.
const bulkSize int64 = 1 << 30
