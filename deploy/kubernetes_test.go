package deploy_test

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// object is what of a manifest is looked at here. That there is nothing in it that
// Kubernetes does not know, internal/suites tests with Kubernetes' own types.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
	Type       string
	Data       map[string]string
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Selector any
		Ports    []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

type pod struct {
	Grace          int         `yaml:"terminationGracePeriodSeconds"`
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
	Volumes        []struct {
		Name      string
		ConfigMap struct{ Name string } `yaml:"configMap"`
		Secret    struct {
			Name string `yaml:"secretName"`
		}
	}
}

type probe struct {
	TCP  struct{ Port string }       `yaml:"tcpSocket"`
	HTTP struct{ Path, Port string } `yaml:"httpGet"`
}

type container struct {
	Name          string
	Image         string
	RestartPolicy string `yaml:"restartPolicy"`
	Args          []string
	Ports         []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	Startup   probe `yaml:"startupProbe"`
	Readiness probe `yaml:"readinessProbe"`
	Liveness  probe `yaml:"livenessProbe"`
	Lifecycle struct {
		PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
	}
	Resources struct{ Limits map[string]string }
	Mounts    []struct {
		Name string
		Path string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	Security struct {
		ReadOnly bool  `yaml:"readOnlyRootFilesystem"`
		Escalate *bool `yaml:"allowPrivilegeEscalation"`
	} `yaml:"securityContext"`
}

func manifests(t *testing.T, file string) map[string]object {
	t.Helper()
	kinds := map[string]object{}
	for doc := range strings.SplitSeq(read(t, file), "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
			t.Errorf("apiVersion, kind or name is missing:\n%s", doc)
		}
		if _, twice := kinds[o.Kind]; twice {
			t.Errorf("two of %s", o.Kind)
		}
		kinds[o.Kind] = o
	}
	return kinds
}

// The manifests' parts name one another, the embedded file is one that oneport
// check is content with, and ports, probes and times fit it.
func TestManifests(t *testing.T) {
	for _, file := range []string{"kubernetes/sidecar.yaml", "kubernetes/edge.yaml"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			all := manifests(t, file)
			deployment := all["Deployment"]
			p := deployment.Spec.Template.Spec
			oneport, stop := edgeContainer(t, p)

			cfg := sidecar(t, all["ConfigMap"].Data["oneport.yaml"], "/etc/oneport-tls/tls.crt", "/etc/oneport-tls/tls.key")
			if cfg.Admin == nil || len(cfg.Listen)+1 != len(oneport.Ports) {
				t.Fatalf("%d listeners and probes, %d ports", len(cfg.Listen), len(oneport.Ports))
			}
			port := oneport.Ports[0]
			if _, text, _ := net.SplitHostPort(cfg.Listen[0].Address); text != strconv.Itoa(port.ContainerPort) {
				t.Errorf("listens on %s, the port is %d", cfg.Listen[0].Address, port.ContainerPort)
			}
			probes := oneport.Ports[1]
			if _, text, _ := net.SplitHostPort(cfg.Admin.Probes); text != strconv.Itoa(probes.ContainerPort) || cfg.Admin.Listen != "" {
				t.Errorf("probes are at %s, the port is %d", cfg.Admin.Probes, probes.ContainerPort)
			}
			var start, ready, alive probe
			start.TCP.Port = port.Name // a sidecar starts before the application, which makes it ready
			ready.HTTP.Path, ready.HTTP.Port = "/readyz", probes.Name
			alive.HTTP.Path, alive.HTTP.Port = "/healthz", probes.Name
			if oneport.Startup != start || oneport.Readiness != ready || oneport.Liveness != alive {
				t.Errorf("the probes are %v, %v, %v", oneport.Startup, oneport.Readiness, oneport.Liveness)
			}
			service := all["Service"]
			if len(service.Spec.Ports) != 1 || service.Spec.Ports[0].TargetPort != port.Name || service.Spec.Ports[0].Port != 443 {
				t.Errorf("the service has %v", service.Spec.Ports)
			}
			labels := deployment.Spec.Template.Metadata.Labels["app.kubernetes.io/name"]
			if by, ok := service.Spec.Selector.(map[string]any); !ok || by["app.kubernetes.io/name"] != labels {
				t.Errorf("the service looks for %v, the pods are %s", service.Spec.Selector, labels)
			}
			if got := stop + cfg.Drain.Timeout; time.Duration(p.Grace)*time.Second <= got || p.Grace != 45 {
				t.Errorf("it takes %v to end, and is killed after %d s", got, p.Grace)
			}
			if oneport.Resources.Limits["memory"] == "" || !oneport.Security.ReadOnly || oneport.Security.Escalate == nil || *oneport.Security.Escalate {
				t.Error("no memory limit, or it may do more than it must")
			}
			volumes(t, all, p, oneport)
		})
	}
}

// edgeContainer is the one of oneport, and how long its pod waits before that ends.
func edgeContainer(t *testing.T, p pod) (c container, stop time.Duration) {
	t.Helper()
	for _, other := range p.Containers {
		stop = max(stop, time.Duration(other.Lifecycle.PreStop.Sleep.Seconds)*time.Second)
	}
	if stop < 5*time.Second {
		t.Errorf("preStop is %v: load balancers still send clients here", stop)
	}
	for _, c := range p.InitContainers {
		if c.Name == "oneport" {
			if c.RestartPolicy != "Always" {
				t.Error("an init container that does not end: want restartPolicy: Always")
			}
			return c, stop
		}
	}
	for _, c := range p.Containers {
		if c.Name == "oneport" {
			return c, stop
		}
	}
	t.Fatal("no container oneport")
	return c, stop
}

// volumes checks that the file and the certificate are where the program looks.
func volumes(t *testing.T, all map[string]object, p pod, c container) {
	t.Helper()
	at := map[string]string{}
	for _, m := range c.Mounts {
		at[m.Name] = m.Path
	}
	found := 0
	for _, v := range p.Volumes {
		switch {
		case v.ConfigMap.Name != "":
			found++
			if v.ConfigMap.Name != all["ConfigMap"].Metadata.Name || c.Args[len(c.Args)-1] != at[v.Name]+"/oneport.yaml" {
				t.Errorf("ConfigMap %s at %s, read by %v", v.ConfigMap.Name, at[v.Name], c.Args)
			}
		case v.Secret.Name != "":
			found++
			if at[v.Name] != "/etc/oneport-tls" {
				t.Errorf("the certificate is at %s", at[v.Name])
			}
			if s, ok := all["Secret"]; ok && (s.Metadata.Name != v.Secret.Name || s.Type != "kubernetes.io/tls" || len(s.StringData) != 2) {
				t.Errorf("secret %s of type %s is not %s", s.Metadata.Name, s.Type, v.Secret.Name)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d volumes", found)
	}
}
