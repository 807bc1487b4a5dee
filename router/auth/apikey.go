package auth

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/oneport-edge/oneport/protocols"
)

// apiKeyPrefix is how keys begin that NewAPIKey makes, so that people and scanners know one
// when they see it.
const apiKeyPrefix = "op_"

// Bounds of keys.
const (
	maxAPIKey      = 256     // bytes of a key; longer ones are not looked at
	maxAPIKeyName  = 128     // bytes of its owner's name
	maxAPIKeyLine  = 1024    // bytes of a line in a file
	mostAPIKeys    = 100_000 // in a file, about 20 MB in memory
	randomOfAPIKey = 32      // random characters of a key: 190 bits
)

// NewAPIKey makes a key for name, and the line by which a file of [APIKeys] knows it. The key
// itself is kept nowhere.
func NewAPIKey(name string) (key, line string, err error) {
	if !isAPIKeyName(name) {
		return "", "", fmt.Errorf("auth: name %q: want at most %d letters, digits and . _ @ -", name, maxAPIKeyName)
	}
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := []byte(apiKeyPrefix)
	var random [64]byte
	for len(b) < len(apiKeyPrefix)+randomOfAPIKey {
		if _, err := rand.Read(random[:]); err != nil {
			return "", "", fmt.Errorf("auth: %w", err)
		}
		for _, r := range random {
			// 248 is the largest multiple of 62 in a byte: no character is likelier than others.
			if r < 248 && len(b) < len(apiKeyPrefix)+randomOfAPIKey {
				b = append(b, alphabet[r%62])
			}
		}
	}
	key = string(b)
	sum := sha256.Sum256(b)
	return key, name + ":" + hex.EncodeToString(sum[:]), nil
}

func isAPIKeyName(s string) bool {
	return s != "" && len(s) <= maxAPIKeyName && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._@-", r)
	})
}

// APIKeysOptions says where keys are looked for.
type APIKeysOptions struct {
	// Header is the field that has a key and nothing else; "" means X-API-Key.
	// "Authorization: Bearer" is always looked at, a query never: it would be in
	// everybody's logs.
	Header string
	// Prefix is how keys begin; "" means "op_". A Bearer token that does not is
	// none of ours, and is left for other guards and for the server, unless its hash is known.
	Prefix string
	// By is [protocols.Identity.By]; "" means "keys".
	By string
}

// APIKeys is a guard that knows clients by keys. It knows the keys by their SHA-256 only: a key has
// 190 random bits, so nobody finds it from its hash, and a slow hash as passwords need
// would only cost time, on each call. Keys are looked up by that hash, in a map: how long
// this takes tells of bits of a hash, which say nothing of a key.
//
// A key goes no further than this port. No key is known until Load. One that is no longer there after
// another Load ends the gRPC calls and WebSockets it has opened.
type APIKeys struct {
	opts    APIKeysOptions
	keys    atomic.Pointer[apiKeySet]
	loading sync.Mutex // held while keys are replaced; before any apiKey.mu
}

type apiKeySet map[[sha256.Size]byte]*apiKey

// apiKey is a key, and what it has opened. It stays the same while its line does.
type apiKey struct {
	owner string

	mu    sync.Mutex // guards the fields below
	calls map[*protocols.Call]struct{}
	gone  bool
}

// open says that the key has opened a call, which is to end with it. It is false if the
// key has gone meanwhile.
func (k *apiKey) open(call *protocols.Call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return false
	}
	if call.Protocol != protocols.HTTP { // an ordinary request is let finish
		if k.calls == nil {
			k.calls = make(map[*protocols.Call]struct{})
		}
		k.calls[call] = struct{}{}
	}
	return true
}

func (k *apiKey) done(call *protocols.Call) {
	k.mu.Lock()
	delete(k.calls, call)
	k.mu.Unlock()
}

// end ends what the key has opened.
func (k *apiKey) end() {
	k.mu.Lock()
	calls := k.calls
	k.gone, k.calls = true, nil
	k.mu.Unlock()
	for call := range calls {
		call.End(&protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: "the key is no longer good"})
	}
}

// NewAPIKeys gives a guard without keys, which lets nobody in.
func NewAPIKeys(opts APIKeysOptions) *APIKeys {
	if opts.Header == "" {
		opts.Header = "X-API-Key"
	}
	if opts.Prefix == "" {
		opts.Prefix = apiKeyPrefix
	}
	if opts.By == "" {
		opts.By = "keys"
	}
	k := &APIKeys{opts: opts}
	k.keys.Store(new(apiKeySet))
	return k
}

// Load replaces the keys by those in a file: a line for each, "name:" and the key's
// SHA-256 in 64 hexadecimal digits. Empty lines and those that begin with "#" do not count. A name may have
// several keys, so that one can take another's place. On an error, which names each wrong
// line, the keys remain as they were. It may be called while calls are let in.
func (k *APIKeys) Load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	return k.Read(f, file)
}

// Read is Load of what r has; name is what errors call it.
func (k *APIKeys) Read(r io.Reader, name string) error {
	keys := make(apiKeySet)
	where := make(map[[sha256.Size]byte]int)
	var problems []error
	wrong := func(line int, format string, args ...any) {
		if len(problems) < 20 {
			problems = append(problems, fmt.Errorf("%s:%d: %s", name, line, fmt.Sprintf(format, args...)))
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxAPIKeyLine), maxAPIKeyLine)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		owner, sum, problem := parseAPIKeyLine(line)
		switch {
		case problem != "":
			wrong(n, "%s", problem)
		case where[sum] > 0:
			wrong(n, "this key is in line %d already", where[sum])
		case len(keys) == mostAPIKeys:
			wrong(n, "more than %d keys", mostAPIKeys)
			return errors.Join(problems...)
		default:
			keys[sum], where[sum] = &apiKey{owner: owner}, n
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		wrong(n+1, "more than %d bytes", maxAPIKeyLine)
	} else if err != nil {
		problems = append(problems, fmt.Errorf("%s: %w", name, err))
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	k.replace(keys)
	return nil
}

func (k *APIKeys) replace(keys apiKeySet) {
	k.loading.Lock()
	defer k.loading.Unlock()
	before := *k.keys.Load()
	for sum, key := range keys {
		if old, ok := before[sum]; ok && old.owner == key.owner {
			keys[sum] = old
		}
	}
	k.keys.Store(&keys)
	for sum, key := range before {
		if keys[sum] != key {
			key.end()
		}
	}
}

// parseAPIKeyLine reads a line that has a key. The problem, if there is one, does not repeat
// the line: it may be a key.
func parseAPIKeyLine(line string) (owner string, sum [sha256.Size]byte, problem string) {
	owner, digits, ok := strings.Cut(line, ":")
	owner, digits = strings.TrimSpace(owner), strings.TrimSpace(digits)
	switch {
	case strings.HasPrefix(line, apiKeyPrefix) && !ok, strings.HasPrefix(digits, apiKeyPrefix):
		return "", sum, "this is a key; the file has its SHA-256 instead, as in the line that oneport apikey prints"
	case !ok:
		return "", sum, "want name:sha256"
	case !isAPIKeyName(owner):
		return "", sum, fmt.Sprintf("the name: want at most %d letters, digits and . _ @ -", maxAPIKeyName)
	case len(digits) != hex.EncodedLen(sha256.Size):
		return "", sum, fmt.Sprintf("the hash: want 64 hexadecimal digits, not %d characters", len(digits))
	}
	if _, err := hex.Decode(sum[:], []byte(digits)); err != nil {
		return "", sum, "the hash: want 64 hexadecimal digits"
	}
	return owner, sum, ""
}

// Admit implements [protocols.Guard].
func (k *APIKeys) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return k.AdmitNow(ctx, call)
}

// AdmitNow implements [protocols.Quick].
func (k *APIKeys) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	k.Clean(call)
	token, ok := k.find(call)
	if !ok {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: "Bearer"}
	}
	key := k.lookUp(token)
	if key == nil || !key.open(call) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: `Bearer error="invalid_token"`}
	}
	if call.Protocol != protocols.HTTP {
		call.OnDone(func(protocols.Result) { key.done(call) })
	}
	call.Identify(&protocols.Identity{Subject: key.owner, By: k.opts.By})
	return ctx, nil
}

// Clean implements [Cleaner].
func (k *APIKeys) Clean(call *protocols.Call) {
	call.Hand(k.opts.Header, "")
	for _, v := range call.Headers("Authorization") {
		if key, ok := bearerAPIKey(v); ok && k.isOurs(key) {
			call.Hand("Authorization", "")
			return
		}
	}
}

// isOurs says whether a Bearer token is meant as a key.
func (k *APIKeys) isOurs(token string) bool {
	return strings.HasPrefix(token, k.opts.Prefix) || k.lookUp(token) != nil
}

// find gives the one key of a request. With more than one there is none: the server
// behind might take another than this guard.
func (k *APIKeys) find(call *protocols.Call) (key string, ok bool) {
	n := 0
	for _, v := range call.Headers(k.opts.Header) {
		n++
		key = v
	}
	for _, v := range call.Headers("Authorization") {
		if token, ok := bearerAPIKey(v); ok && k.isOurs(token) {
			n++
			key = token
		}
	}
	return key, n == 1
}

// lookUp gives the key of a token; nil if it is none.
func (k *APIKeys) lookUp(token string) *apiKey {
	if token == "" || len(token) > maxAPIKey {
		return nil
	}
	return (*k.keys.Load())[sha256.Sum256([]byte(token))]
}

// bearerAPIKey gives the token of an Authorization field (RFC 6750, 2.1).
func bearerAPIKey(v string) (string, bool) {
	scheme, token, ok := strings.Cut(v, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.Trim(token, " "), true
}
