// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package kubernetes checks the Kubernetes manifests. It is a module of its own, so that the
// versions of Kubernetes that it needs are not those of whoever builds timguard.
package kubernetes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// base is what kustomize makes of the folder.
type base struct {
	deployment appsv1.Deployment
	service    corev1.Service
	budget     policyv1.PodDisruptionBudget
	configMaps []corev1.ConfigMap
}

// build runs kustomize, and decodes what it prints. A field that Kubernetes does not have
// is an error.
func build(t *testing.T) (b base) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resources.Resources() {
		var into any
		switch kind := r.GetKind(); kind {
		case "Deployment":
			into = &b.deployment
		case "Service":
			into = &b.service
		case "PodDisruptionBudget":
			into = &b.budget
		case "ConfigMap":
			b.configMaps = append(b.configMaps, corev1.ConfigMap{})
			into = &b.configMaps[len(b.configMaps)-1]
		default:
			t.Fatalf("the kind %s is not checked", kind)
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			t.Errorf("%s %s: %v", r.GetKind(), r.GetName(), err)
		}
	}
	if len(b.configMaps) != 2 || b.deployment.Name == "" || b.service.Name == "" || b.budget.Name == "" {
		t.Fatalf("%d ConfigMaps, Deployment %q, Service %q, PodDisruptionBudget %q", len(b.configMaps), b.deployment.Name, b.service.Name, b.budget.Name)
	}
	return b
}

func (b *base) pod() corev1.PodSpec { return b.deployment.Spec.Template.Spec }

func (b *base) container() corev1.Container { return b.pod().Containers[0] }

// caddyfile returns the configuration in the ConfigMap that the pods mount.
func (b *base) caddyfile(t *testing.T) string {
	t.Helper()
	for _, v := range b.pod().Volumes {
		for _, c := range b.configMaps {
			if v.ConfigMap != nil && v.ConfigMap.Name == c.Name && c.Data["Caddyfile"] != "" {
				return c.Data["Caddyfile"]
			}
		}
	}
	t.Fatal("the pods mount no ConfigMap with a Caddyfile")
	return ""
}

func TestSelectorsSelectThePods(t *testing.T) {
	t.Parallel()
	b := build(t)
	selectors := map[string]*metav1.LabelSelector{
		"Deployment":          b.deployment.Spec.Selector,
		"Service":             {MatchLabels: b.service.Spec.Selector},
		"PodDisruptionBudget": b.budget.Spec.Selector,
	}
	for i, c := range b.pod().TopologySpreadConstraints {
		selectors[fmt.Sprint("TopologySpreadConstraint ", i)] = c.LabelSelector
	}
	for of, selector := range selectors {
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(labels.Set(b.deployment.Spec.Template.Labels)) {
			t.Errorf("%s: the selector %v does not select the pods; %v", of, s, err)
		}
	}
}

func TestPortsAreThoseOfTheCaddyfile(t *testing.T) {
	t.Parallel()
	b := build(t)
	ports := make(map[string]int32)
	for _, p := range b.container().Ports {
		ports[p.Name] = p.ContainerPort
		if !strings.Contains(b.caddyfile(t), fmt.Sprintf("\nhttp://:%d {\n", p.ContainerPort)) {
			t.Errorf("nothing listens on the port %s", p.Name)
		}
	}
	for _, p := range b.service.Spec.Ports {
		if ports[p.TargetPort.StrVal] == 0 || p.TargetPort.StrVal == "health" {
			t.Errorf("the Service has the port %v", p.TargetPort)
		}
	}
	c := b.container()
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || ports[probe.HTTPGet.Port.StrVal] == 0 || !strings.Contains(b.caddyfile(t), "handle "+probe.HTTPGet.Path+" {") {
			t.Errorf("the probe %s asks what nothing answers: %v", name, probe)
		}
	}
}

var gracePeriod = regexp.MustCompile(`\tgrace_period (\S+)\n`)

// A pod that stops waits for the balancers, for callbacks, and for deliveries, one after
// the other.
func TestPodsHaveTimeToEnd(t *testing.T) {
	t.Parallel()
	b := build(t)
	found := gracePeriod.FindStringSubmatch(b.caddyfile(t))
	if found == nil {
		t.Fatal("the Caddyfile has no grace_period")
	}
	grace, err := time.ParseDuration(found[1])
	if err != nil {
		t.Fatal(err)
	}
	lifecycle := b.container().Lifecycle
	if lifecycle == nil || lifecycle.PreStop == nil || lifecycle.PreStop.Sleep == nil {
		t.Fatal("no preStop with sleep: the image has no other command")
	}
	needed := time.Duration(lifecycle.PreStop.Sleep.Seconds)*time.Second + 2*grace
	has := b.pod().TerminationGracePeriodSeconds
	if has == nil {
		t.Fatal("no terminationGracePeriodSeconds")
	}
	if got := time.Duration(*has) * time.Second; got <= needed {
		t.Errorf("terminationGracePeriodSeconds is %v, want more than %v", got, needed)
	}
}

// What the Pod Security Standard restricted wants, and a file system that cannot be written.
func TestPodsAreRestricted(t *testing.T) {
	t.Parallel()
	b := build(t)
	pod, container := b.pod().SecurityContext, b.container().SecurityContext
	if pod == nil || container == nil {
		t.Fatal("no securityContext")
	}
	is := func(p *bool, want bool) bool { return p != nil && *p == want }
	switch {
	case !is(pod.RunAsNonRoot, true), pod.SeccompProfile == nil || pod.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		t.Errorf("the pod's securityContext is %+v", pod)
	case !is(container.AllowPrivilegeEscalation, false), !is(container.ReadOnlyRootFilesystem, true),
		container.Capabilities == nil || !slices.Equal(container.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(container.Capabilities.Add) > 0:
		t.Errorf("the container's securityContext is %+v", container)
	case !is(b.pod().AutomountServiceAccountToken, false), b.pod().HostNetwork, b.pod().HostPID, b.pod().HostIPC:
		t.Error("the pod has more than it needs of its node or its cluster")
	}
}

// All that the pods take from elsewhere is in the base, or one of the two Secrets that
// kustomization.yaml says to create.
func TestPodsFindWhatTheyMount(t *testing.T) {
	t.Parallel()
	b := build(t)
	var secrets []string
	mounted := make(map[string]bool)
	for _, m := range b.container().VolumeMounts {
		mounted[m.Name] = true
	}
	for _, v := range b.pod().Volumes {
		if !mounted[v.Name] {
			t.Errorf("the volume %s is not mounted", v.Name)
		}
		if v.Secret != nil {
			secrets = append(secrets, v.Secret.SecretName)
		}
	}
	for _, e := range b.container().Env {
		if !strings.Contains(b.caddyfile(t), "{env."+e.Name+"}") {
			t.Errorf("the Caddyfile does not use %s", e.Name)
		}
		secrets = append(secrets, e.ValueFrom.SecretKeyRef.Name)
	}
	if !slices.Equal(secrets, []string{"timguard", "timguard-postgres"}) {
		t.Errorf("the pods need the Secrets %v", secrets)
	}
	from := b.container().EnvFrom[0].ConfigMapRef.Name
	for _, c := range b.configMaps {
		if c.Name != from {
			continue
		}
		for name := range c.Data {
			if text := b.caddyfile(t); !strings.Contains(text, "{env."+name+"}") && !strings.Contains(text, "{$"+name+"}") {
				t.Errorf("the Caddyfile does not use %s", name)
			}
		}
		return
	}
	t.Errorf("the base has no ConfigMap %s", from)
}
