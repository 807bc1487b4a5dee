// Command manifests reads Kubernetes manifests with Kubernetes' own types: a key that
// they do not have, or a value of another type, is an error. It needs no cluster, and
// does not know what an API server would check beyond that.
package main

import (
	"bytes"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// types are those that our manifests use.
func types() map[string]any {
	return map[string]any{
		"v1/ConfigMap":                  &corev1.ConfigMap{},
		"v1/Secret":                     &corev1.Secret{},
		"v1/Service":                    &corev1.Service{},
		"apps/v1/Deployment":            &appsv1.Deployment{},
		"policy/v1/PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
	}
}

func main() {
	wrong := len(os.Args) < 2
	for _, file := range os.Args[1:] {
		text, err := os.ReadFile(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for i, doc := range bytes.Split(text, []byte("\n---\n")) {
			if err := check(doc); err != nil {
				fmt.Fprintf(os.Stderr, "%s: document %d: %v\n", file, i+1, err)
				wrong = true
			}
		}
	}
	if wrong {
		os.Exit(1)
	}
}

func check(doc []byte) error {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return err
	}
	into, ok := types()[head.APIVersion+"/"+head.Kind]
	if !ok {
		return fmt.Errorf("%s %s: not known here", head.APIVersion, head.Kind)
	}
	if err := yaml.UnmarshalStrict(doc, into); err != nil {
		return err
	}
	fmt.Println(head.APIVersion, head.Kind)
	return nil
}
