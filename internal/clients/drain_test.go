//go:build clients

package clients_test

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"time"
)

// drain sends SIGTERM while node/drain.mjs is connected in every way.
func (d *demo) drain(t *testing.T) {
	cmd := d.command(t, 30*time.Second, "node", "node/drain.mjs")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if lines.Text() == "ready" {
			d.terminate(t)
			continue
		}
		out.WriteString("\n" + lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s%s", err, stderr.Bytes(), out.String())
		return
	}
	t.Log(out.String())
}
