package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/oneport-edge/oneport/internal/edge"
	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// GetStats counts what calls of a file's port did.
func TestStats(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/bad" {
			w.WriteHeader(http.StatusBadGateway)
		}
		_, _ = io.WriteString(w, "hello")
	}))
	defer app.Close()
	e, port := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:0"
tls: { dev: true }
upstreams: { app: { servers: [%q] } }
limits: { named: { one: { rate: 1/h, burst: 1 } } }
routes: [{ path: /limited, to: app, limit: one }, { path: /api/, to: app }]
admin: { listen: "127.0.0.1:0" }
`, app.URL))
	a := administer(t, edge.AdminOptions{Edge: e, Version: "v1.2.3"})
	for _, path := range []string{"/api/good", "/api/good", "/api/bad", "/limited", "/limited", "/nowhere"} {
		do(t, clients(port)["HTTP/2.0"], http.MethodGet, port.URL(path), "", nil)
	}
	a.eventually(t, a.url+"/api/v1/stats", `"calls": "6"`)
	code, body := a.ask(t, http.MethodGet, a.url+"/api/v1/stats")
	var got adminv1.GetStatsResponse
	if err := protojson.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("%d %v: %s", code, err, body)
	}
	st := got.GetStats()
	web := st.GetProtocols()[0]
	if n := len(web.GetBucketBounds()); web.GetProtocol() != "http" || web.GetErrors() != 1 || len(web.GetBucketCounts()) != n+1 || web.GetBucketCounts()[n] != 6 {
		t.Errorf("%v", web)
	}
	if st.GetBytesRead() == 0 || st.GetBytesWritten() == 0 || st.GetMemoryBytes() == 0 || st.GetGoroutines() == 0 || st.GetCpuSeconds() == 0 ||
		st.GetVersion() != "v1.2.3" || !st.GetLastReload().GetOk() || st.GetDraining() {
		t.Errorf("%v", st)
	}
	refused := map[string]uint64{}
	for _, r := range st.GetRefusals() {
		refused[r.GetWhat()+" "+r.GetReason()] = r.GetCount()
	}
	if refused["calls too_many"] != 1 || refused["limit one rate"] != 1 || len(refused) != 2 {
		t.Errorf("refused: %v", refused)
	}
}
