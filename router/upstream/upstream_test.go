package upstream_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/router/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestURLs(t *testing.T) {
	for url, streams := range map[string]bool{
		"http://127.0.0.1:8080":       false,
		"http://app":                  false,
		"https://app.example.com/":    false,
		"h2c://127.0.0.1:8080":        true,
		"grpc://[::1]:50051":          true,
		"grpcs://greeter.example.com": true,
		"grpc+unix:///run/app.sock":   true,
		"http+unix:///run/app.sock":   false,
	} {
		u, err := upstream.New(url, upstream.Options{})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := u.HTTP2(); got != streams {
			t.Errorf("%s: speaks HTTP/2: %v, want %v", url, got, streams)
		}
		if u.String() != url {
			t.Errorf("%s is called %s", url, u)
		}
		u.Close()
	}
}

func TestBadURLs(t *testing.T) {
	for url, want := range map[string]string{
		"":                          "want a URL",
		"127.0.0.1:8080":            "want a URL",
		"localhost:8080":            "want a URL",
		"ftp://127.0.0.1":           "the scheme is none of",
		"grpc://127.0.0.1":          "the port is missing",
		"h2c://":                    "the host is missing",
		"http://:80":                "the host is missing",
		"http://app/api":            "a path has no place here",
		"http://user:secret@app":    "credentials",
		"http://app?x=1":            "a query",
		"grpc+unix://run/app.sock":  "three slashes",
		"grpc+unix:":                "three slashes",
		"tcp+unix:///run/app.sock":  "the scheme is none of",
		"http://127.0.0.1:notaport": "want a URL",
	} {
		u, err := upstream.New(url, upstream.Options{})
		if err == nil {
			u.Close()
			t.Errorf("%s is taken", url)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `upstream "`) {
			t.Errorf("%s: %v; want %q in it", url, err, want)
		}
	}
}
