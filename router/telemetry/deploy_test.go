package telemetry_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/router/telemetry"
)

// Rules and the dashboard ask for metrics that there are. That they have data, a test with
// the tag clients looks at.
func TestDeployKnowsTheMetrics(t *testing.T) {
	known := map[string]bool{}
	for _, f := range telemetry.Families() {
		known[f.Name] = true
		if f.Type == "histogram" {
			known[f.Name+"_bucket"], known[f.Name+"_count"], known[f.Name+"_sum"] = true, true, true
		}
	}
	for _, file := range []string{"prometheus/rules.yml", "prometheus/rules_test.yml", "grafana/oneport.json"} {
		b, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\boneport_[a-z0-9_]+`).FindAllString(string(b), -1)
		if len(names) < 10 {
			t.Errorf("%s asks for %d metrics", file, len(names))
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s: %s does not exist", file, name)
			}
		}
	}
}

// Each alert has a case in rules_test.yml that brings it about.
func TestEachAlertHasACase(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("../../deploy/prometheus/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	if len(alerts) < 10 {
		t.Errorf("%d alerts", len(alerts))
	}
	for _, a := range alerts {
		if !strings.Contains(string(cases), "- alertname: "+a[1]+"\n") || !strings.Contains(string(cases), "{ alertname: "+a[1]+",") {
			t.Errorf("%s: want one case where it is raised, and one where it is not", a[1])
		}
	}
}
