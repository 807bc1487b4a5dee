//go:build suites

package suites

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManifests reads deploy's manifests with Kubernetes' own types, strictly.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../../deploy/kubernetes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	args := []string{"-C", "../../tools/manifests", "run", "."}
	for _, file := range files {
		abs, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, abs)
	}
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := strings.Count(string(out), "\n"); n < 8 {
		t.Errorf("only %d objects: %s", n, out)
	}
}
