// Package deploy holds what runs oneport as a service: units for systemd, a
// Dockerfile, manifests for Kubernetes, rules for Prometheus, a dashboard for Grafana. It has no code; its test reads the
// files, and holds them against each other and against what the program does.
// docs/operations.md says how they are used.
package deploy
