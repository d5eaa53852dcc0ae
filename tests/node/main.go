// Program node is what a node of a Kubernetes cluster runs besides containerd, and the scheduler, for tests: kubelet,
// kube-proxy and kube-scheduler in one binary, each under the flags of the original. The name that it is called by says
// which; tests/node/build makes the links. The control plane is a module of its own, tests/cluster: most tests need no node.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	run := programs[filepath.Base(os.Args[0])]
	if run == nil {
		fmt.Fprintln(os.Stderr, "call it kubelet, kube-proxy or kube-scheduler")
		os.Exit(2)
	}
	os.Exit(cli.Run(run()))
}

var programs = map[string]func() *cobra.Command{
	"kubelet":        func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kube-proxy":     proxy.NewProxyCommand,
	"kube-scheduler": func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}
