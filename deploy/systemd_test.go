package deploy_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router/config"
)

// known are the keys of unit files that are used here: a mistyped one would be
// ignored by systemd, with a warning that nobody reads.
var known = map[string][]string{
	"Unit":    strings.Fields("Description Documentation Wants After Requires"),
	"Install": strings.Fields("WantedBy Also"),
	"Socket":  strings.Fields("ListenStream Backlog"),
	"Service": strings.Fields(`Type NotifyAccess ExecStart WatchdogSec TimeoutStopSec KillMode Restart RestartSec RestartPreventExitStatus
		DynamicUser LoadCredential StateDirectory StateDirectoryMode NoNewPrivileges CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp PrivateDevices
		ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables ProtectProc
		RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID LockPersonality MemoryDenyWriteExecute RemoveIPC
		SystemCallArchitectures SystemCallFilter SystemCallErrorNumber UMask MemoryHigh MemoryMax TasksMax LimitNOFILE`),
}

// unit reads a unit file: its values by section and key.
func unit(t *testing.T, file string) map[string][]string {
	t.Helper()
	values, section := map[string][]string{}, ""
	for line := range strings.Lines(read(t, file)) {
		line = strings.TrimSpace(line)
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case !ok || !slices.Contains(known[section], key):
			t.Errorf("%s: [%s] has no %q", file, section, line)
		default:
			values[section+"."+key] = append(values[section+"."+key], value)
		}
	}
	return values
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sidecar reads a oneport.yaml as the program does, with a certificate in place of
// the one that it names, and gives it if "oneport check" is content with it.
func sidecar(t *testing.T, text, cert, key string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	if err := certs.Dev(dir).Load(); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{cert: "server.crt", key: "server.key"} {
		if !strings.Contains(text, from) {
			t.Fatalf("it does not name %s", from)
		}
		text = strings.ReplaceAll(text, from, filepath.Join(dir, to))
	}
	cfg, err := config.Parse("oneport.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %v", cfg.Warnings)
	}
	if err := edge.Check(cfg); err != nil {
		t.Error(err)
	}
	return cfg
}

// The units fit one another, the file beside them, and the program's exit codes.
func TestUnits(t *testing.T) {
	service := unit(t, "systemd/oneport.service")
	socket := unit(t, "systemd/oneport.socket")
	const credentials = "${CREDENTIALS_DIRECTORY}/"
	cfg := sidecar(t, read(t, "systemd/oneport.yaml"), credentials+"tls.crt", credentials+"tls.key")

	if len(cfg.Listen) != len(socket["Socket.ListenStream"]) {
		t.Fatalf("%d listeners, and sockets %v", len(cfg.Listen), socket["Socket.ListenStream"])
	}
	for i, l := range cfg.Listen {
		if _, port, err := net.SplitHostPort(l.Address); err != nil || port != socket["Socket.ListenStream"][i] {
			t.Errorf("oneport.yaml listens on %s, the socket is %s", l.Address, socket["Socket.ListenStream"][i])
		}
	}
	one := func(key string) string {
		if len(service[key]) != 1 {
			t.Fatalf("%s: %q, want one", key, service[key])
		}
		return service[key][0]
	}
	for key, want := range map[string]string{
		"Service.Type":                     "notify-reload",
		"Service.RestartPreventExitStatus": "1", // exitConfig
		"Service.DynamicUser":              "yes",
		"Service.NoNewPrivileges":          "yes",
		"Service.ProtectSystem":            "strict",
		"Service.CapabilityBoundingSet":    "", // the socket is systemd's
		"Service.ExecStart":                "/usr/local/bin/oneport serve -c /etc/oneport/oneport.yaml",
		"Unit.Requires":                    "oneport.socket",
	} {
		if got := one(key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if !slices.Contains(service["Service.LoadCredential"], name+":/etc/oneport/"+name) {
			t.Errorf("oneport.yaml names a credential %s that is not loaded", name)
		}
	}
	stop, err := time.ParseDuration(one("Service.TimeoutStopSec"))
	if err != nil || stop <= cfg.Drain.Timeout || stop <= 30*time.Second {
		t.Errorf("TimeoutStopSec=%s, and a drain of %v, 30s by default: it would be killed", one("Service.TimeoutStopSec"), cfg.Drain.Timeout)
	}
}

// What systemd itself says of the units. Before version 253 it does not know
// notify-reload; the program need not be installed.
func TestSystemdVerifies(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here: the units were parsed only")
	}
	dir := t.TempDir()
	files := []string{"oneport.service", "oneport.socket"}
	for i, name := range files {
		files[i] = filepath.Join(dir, name)
		text := strings.Replace(read(t, "systemd/"+name), "/usr/local/bin/oneport", "/bin/true", 1)
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify"}, files...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) && !strings.Contains(line, "Failed to parse service type, ignoring: notify-reload") {
			t.Errorf("systemd says: %s", line)
		}
	}
}

// The image is built by the Makefile's own line, without C.
func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	_, line, ok := strings.Cut(text, "RUN CGO_ENABLED=0 go build ")
	if !ok {
		t.Fatal("no static build")
	}
	line, _, _ = strings.Cut(line, " -o ")
	flags := strings.Replace(line, "-buildvcs=false ", "", 1) // .git is not in the context
	flags = strings.NewReplacer(`"`, "'", "$VERSION", "$(VERSION)", "$COMMIT", "$(COMMIT)", "nomsgpack", "$(TAGS)").Replace(flags)
	_, ldflags, _ := strings.Cut(read(t, "../Makefile"), "\nLDFLAGS := ")
	ldflags, _, _ = strings.Cut(ldflags, "\n")
	if want := "-trimpath -tags $(TAGS) -ldflags '" + ldflags + "'"; flags != want {
		t.Errorf("it is built with %s, by the Makefile with %s", flags, want)
	}
	_, final, _ := strings.Cut(text, "\nFROM scratch\n")
	for _, want := range []string{"/etc/ssl/certs/ca-certificates.crt", "USER 65532:65532", `ENTRYPOINT ["/oneport"]`} {
		if !strings.Contains(final, want) {
			t.Errorf("the image lacks %s", want)
		}
	}
	out := filepath.Join(t.TempDir(), "oneport")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-tags", "nomsgpack", "-ldflags", "-s -w -X main.version=v1.2.3 -X main.commit=abc", "-o", out, "../cmd/oneport")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	version, err := exec.CommandContext(t.Context(), out, "version").Output()
	if err != nil || !strings.Contains(string(version), "v1.2.3") {
		t.Errorf("%q, %v", version, err)
	}
}
