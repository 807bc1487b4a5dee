//go:build suites && !bulk

package suites

// bulkSize is how much goes through in each run of TestBulk: enough to see that it
// does not stay. "make bulk" has a GiB.
const bulkSize int64 = 64 << 20
