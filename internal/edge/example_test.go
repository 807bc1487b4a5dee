package edge_test

import (
	"os"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router/config"
)

// The example is what the README shows, and fine.
func TestExample(t *testing.T) {
	const file = "../../examples/sidecar/oneport.yaml"
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("%v", cfg.Warnings)
	}
	if err := edge.Check(cfg); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\n") // without its comment
	if !strings.Contains(string(readme), "```yaml\n"+body+"```\n") {
		t.Error("the README shows another file")
	}
}
