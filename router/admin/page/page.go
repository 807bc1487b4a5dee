package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
)

//go:embed index.html assets
var files embed.FS

// policy is what the page may do: have scripts, styles and answers from here, and no more.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// Prefix is where files lie that the page asks for.
const Prefix = "/assets/"

// types are those of the files, by their ends: the system's table may have others.
var types = map[string]string{
	".mjs": "text/javascript; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml",
	".txt": "text/plain; charset=utf-8",
}

// Handler serves the page at /, and its files below [Prefix]. Their addresses have a digest of all
// of them, so that browsers may keep them for ever, and never mix those of two versions.
// It may be called concurrently.
func Handler() http.Handler {
	assets, digest, err := load()
	if err != nil {
		panic(err) // the files are part of the program
	}
	var index bytes.Buffer
	tmpl := template.Must(template.ParseFS(files, "index.html"))
	if err := tmpl.Execute(&index, map[string]string{"Assets": Prefix + digest}); err != nil {
		panic(err)
	}
	sum := sha256.Sum256(index.Bytes())
	etag := fmt.Sprintf("%q", hex.EncodeToString(sum[:8]))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // asked for each time, as it names the files
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(index.Bytes()) // the browser has left: nothing to tell
	})
	mux.HandleFunc("GET "+Prefix+digest+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		b, ok := assets[r.PathValue("name")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", types[path.Ext(r.PathValue("name"))])
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(b) // the browser has left: nothing to tell
	})
	return mux
}

// load reads the files, and makes a digest of their names and contents.
func load() (assets map[string][]byte, digest string, err error) {
	assets = make(map[string][]byte)
	hash := sha256.New()
	list, err := fs.ReadDir(files, "assets")
	if err != nil {
		return nil, "", err
	}
	for _, f := range list { // sorted by their names
		b, err := fs.ReadFile(files, "assets/"+f.Name())
		if err != nil {
			return nil, "", err
		}
		assets[f.Name()] = b
		fmt.Fprintf(hash, "%s %d\n", f.Name(), len(b))
		hash.Write(b)
	}
	return assets, hex.EncodeToString(hash.Sum(nil))[:12], nil
}
