package page_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/router/admin/page"
)

// get asks the handler as the server does.
func get(t *testing.T, path string, header http.Header) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	page.Handler().ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

var (
	address = regexp.MustCompile(`(?:src|href)="([^"#]+)"`)
	imports = regexp.MustCompile(`(?m)^import .*from '\./([^']+)'`)
)

// Everything that the page asks for is here, has a type, and may be kept for ever; and nothing of
// it is inline or from elsewhere.
func TestPageIsWhole(t *testing.T) {
	res, index := get(t, "/", nil)
	if res.StatusCode != http.StatusOK || res.Header.Get("Cache-Control") != "no-cache" {
		t.Fatal(res.Status, res.Header)
	}
	for _, inline := range []string{"style=", " onclick", "javascript:", "<style", "http://", "https://", "<script>"} {
		if strings.Contains(index, inline) {
			t.Errorf("the page has %q in it", inline)
		}
	}
	var todo []string
	for _, m := range address.FindAllStringSubmatch(index, -1) {
		if !strings.HasPrefix(m[1], "/api/") {
			todo = append(todo, m[1])
		}
	}
	seen := map[string]bool{}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		res, body := get(t, path, nil)
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") == "" || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s %v", path, res.Status, res.Header)
		}
		for _, m := range imports.FindAllStringSubmatch(body, -1) {
			todo = append(todo, path[:strings.LastIndexByte(path, '/')+1]+m[1])
		}
	}
	if len(seen) < 12 {
		t.Errorf("found only %v", seen)
	}
}

func TestPolicyIsStrict(t *testing.T) {
	res, _ := get(t, "/", nil)
	policy := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%q is not in %q", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Error(policy)
	}
}

func TestPageIsNotSentTwice(t *testing.T) {
	res, _ := get(t, "/", nil)
	again, body := get(t, "/", http.Header{"If-None-Match": {res.Header.Get("ETag")}})
	if again.StatusCode != http.StatusNotModified || body != "" {
		t.Error(again.Status, len(body))
	}
}

func TestOtherFilesAreNotThere(t *testing.T) {
	_, index := get(t, "/", nil)
	folder := regexp.MustCompile(`/assets/[0-9a-f]+/`).FindString(index)
	for _, path := range []string{"/x", "/assets/", folder, folder + "index.html", folder + "..%2findex.html", "/assets/000000000000/app.mjs"} {
		if res, _ := get(t, path, nil); res.StatusCode == http.StatusOK {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}
